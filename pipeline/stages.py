"""The engine's way: the stages, in the order an example passes them.

    ingest      source files -> examples: key, image reference, captions, labels, meta
    duplicates  of images with equal bytes, and of equal keys, the first lives
    caption     pixels -> a generated caption                         (off without a model)
    parse       captions -> tags, with place and kind
    tag         pixels -> the tagger's scores of its own classes      (off without a model)
    candidates  what all sources say -> tags to decide on, and the names that models are asked
    localize    pixels + candidates -> boxes                          (off without a model)
    embed       pixels + boxes -> region embeddings                   (off without a model)
    cluster     embeddings of a tag -> centres, spread                (needs embed)
    clean       all evidence -> a verdict for each tag of an image
    shards      verdicts + original bytes -> webdataset tars
    features    pixels of the shards -> what a tagger is distilled from   (off without a model)

Every stage is a Beam job of its own and reads the parts that earlier ones wrote; see `transforms.stage`.
"""

from typing import Any

from tagmill.pipeline.config import RunConfig
from tagmill.tag_system.kinds import KINDS
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.candidates import Asked, Candidates, CandidatesConfig
from tagmill.transforms.caption import Caption
from tagmill.transforms.clean import Clean
from tagmill.transforms.cluster import Cluster
from tagmill.transforms.duplicates import Duplicates
from tagmill.transforms.embed import Embed
from tagmill.transforms.features import Features
from tagmill.transforms.ingest import Ingest
from tagmill.transforms.localize import Localize, LocalizeConfig
from tagmill.transforms.parse import Parse
from tagmill.transforms.shards import Shards
from tagmill.transforms.stage import Shared, Stage
from tagmill.transforms.tag import Tag

STAGE_NAMES = (
    "ingest",
    "duplicates",
    "caption",
    "parse",
    "tag",
    "candidates",
    "localize",
    "embed",
    "cluster",
    "clean",
    "shards",
    "features",
)
"""All stages, switched on or not, in order."""


def build_stages(config: RunConfig, vocabulary: Vocabulary) -> list[Stage[Any]]:
    """Construct the stages that are switched on, in order."""
    shared = Shared(config.part_size, config.threads, config.ingest.max_pixels, config.strict_versions)
    tag = Tag(config.tag, shared) if config.tag else None
    localize = Localize(config.localize, shared) if config.localize else None
    stages: list[Stage[Any] | None] = [
        Ingest(config.ingest, shared),
        Duplicates(config.duplicates, shared) if config.duplicates else None,
        Caption(config.caption, shared) if config.caption else None,
        Parse(config.parse, shared, vocabulary) if config.parse else None,
        tag,
        Candidates(_candidates(config), shared, vocabulary, _asked(tag, localize)),
        localize,
        Embed(config.embed, shared, config.tag) if config.embed else None,
        Cluster(config.cluster, shared) if config.cluster and config.embed else None,
        Clean(config.clean, shared),
        Shards(config.shards, shared),
        Features(config.features, shared) if config.features else None,
    ]
    return [stage for stage in stages if stage is not None]


def _candidates(config: RunConfig) -> CandidatesConfig:
    """Gather the keys that decide the candidates; that of the kinds stands where its model is."""
    kinds = config.localize.kinds if config.localize else LocalizeConfig.model_fields["kinds"].default
    ordered = [kind for kind in KINDS if kind in kinds]  # another order is not another choice
    return CandidatesConfig(candidate_floor=config.candidate_floor, kinds=ordered)


def _asked(tag: Tag | None, localize: Localize | None) -> Asked:
    """Read which names the run's models know; no weights are read."""
    return Asked(
        tagger=tag.classes() if tag else None,
        localizer=localize is not None,
        localized=localize.classes() if localize else None,
    )


def inputs_of(stage: Stage[Any], stages: list[Stage[Any]]) -> list[str]:
    """Name the inputs of a stage that are switched on."""
    active = {other.name for other in stages}
    return [name for name in stage.inputs() if name in active]
