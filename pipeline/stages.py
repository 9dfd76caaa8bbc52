"""The stages, in the order in which an example passes them.

    ingest      source files -> examples: key, image reference, captions, labels, meta
    duplicates  of images with equal bytes, of equal keys and, if asked, of near pictures the first lives
    caption     pixels -> a generated caption                         (off without a model)
    parse       captions -> tags, with place and kind
    tag         pixels -> the tagger's scores of its own classes      (off without a model)
    candidates  what all sources say -> tags to decide on, and the names that models are asked
    localize    pixels + candidates -> boxes                          (off without a model)
    embed       pixels + boxes -> region embeddings                   (off without a model)
    cluster     embeddings of a tag -> centres, spread                (needs embed)
    clean       all evidence -> a verdict for each tag of an image
    choose      what samples say -> the examples that the shards take  (off without an expression)
    shards      verdicts + original bytes -> webdataset tars
    features    pixels of the shards -> what a tagger is distilled from   (off without a model)

Each stage is a job of its own and reads the parts that earlier ones wrote; see `transforms.stage`. A config
may add stages of its own to them.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from tagmill.pipeline.kinds import KINDS
from tagmill.tag_system.core import plugins
from tagmill.tag_system.core.config import Config, check_values
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.candidates import Candidates
from tagmill.transforms.caption import Caption
from tagmill.transforms.choose import Choose
from tagmill.transforms.clean import Clean
from tagmill.transforms.cluster import Cluster
from tagmill.transforms.duplicates import Duplicates
from tagmill.transforms.embed import Embed
from tagmill.transforms.features import Features
from tagmill.transforms.ingest import Ingest
from tagmill.transforms.localize import Localize
from tagmill.transforms.parse import Parse
from tagmill.transforms.shards import Shards
from tagmill.transforms.stage import PartStage, RunContext, Shared, Stage
from tagmill.transforms.tag import TagStage

Use = Literal["always", "on", "off", "implied"]
"""Whether a stage can be switched off by a null section, and is so by default; one that is `implied` has no
section: other keys say what it does."""

STAGES: Mapping[type[Stage[Any]], Use] = {
    Ingest: "always",
    Duplicates: "on",
    Caption: "off",
    Parse: "on",
    TagStage: "off",
    Candidates: "implied",
    Localize: "off",
    Embed: "off",
    Cluster: "on",
    Clean: "always",
    Choose: "implied",
    Shards: "always",
    Features: "off",
}
"""All stages of the engine, in order; the sections of a config follow from them."""

STAGE_NAMES = tuple(stage.name for stage in STAGES)

RESERVED = frozenset({"report", "tokens"})
"""Folders of a run that are not a stage's."""


class OwnStage(Config):
    """A stage of your own: the class `stage`, as `package.module:Class`, with `options` for its config. It
    comes after the stage `after`.
    """

    stage: str
    after: str
    options: dict[str, Any] = {}


def class_of(own: OwnStage) -> type[Stage[Any]]:
    """Load the class of an own stage. Raises ConfigError if there is none, or it is not fit for a stage."""
    found = plugins.find("stage", own.stage, {})
    if not (isinstance(found, type) and issubclass(found, Stage)):
        raise ConfigError(f"stage {own.stage!r} is not a stage: extend tagmill.transforms.stage:PartStage")
    missing = [name for name in ("kind", "name", "version", "schema") if not hasattr(found, name)]
    if missing:
        raise ConfigError(f"stage {own.stage!r} lacks {', '.join(missing)}: give the class these attributes")
    if found.schema.names[:1] != ["row"] and found.kind == PartStage.kind:
        raise ConfigError(f"stage {own.stage!r}: the first column of its schema must be `row`, int32")
    if found.kind not in KINDS:
        raise ConfigError(f"stage {own.stage!r}: its kind is {found.kind!r}; use one of {', '.join(KINDS)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", found.name):
        raise ConfigError(
            f"stage {own.stage!r}: its name is {found.name!r}; use lower-case letters, digits and _"
        )
    return found


def order(own: Iterable[OwnStage]) -> list[type[Stage[Any]]]:
    """Order the engine's stages with own ones between them.

    Raises ConfigError for a name that is taken, and for a place after a stage that does not exist.
    """
    ordered = list(STAGES)
    for one in own:
        stage = class_of(one)
        names = [other.name for other in ordered]
        if stage.name in names or stage.name in RESERVED:
            raise ConfigError(f"stage {one.stage!r}: the name {stage.name} is taken; give it another one")
        if one.after not in names:
            raise ConfigError(f"stage {one.stage!r}: there is no stage {one.after!r} for it to come after")
        ordered.insert(names.index(one.after) + 1, stage)
    return ordered


def sections(config: Config) -> dict[str, Any]:
    """Give the values of a run's config by key, with the configs of own stages among its sections.

    Raises ConfigError for options that an own stage does not take.
    """
    values = dict(config)
    for own in values["stages"]:
        stage = class_of(own)
        values[stage.name] = check_values(f"stage {own.stage!r}", own.options, stage.config_class())
    return values


def build_stages(config: Config, vocabulary: Vocabulary, until: str | None = None) -> list[Stage[Any]]:
    """Construct the stages of a run that are switched on, in order, up to `until` if that is named.

    Raises ConfigError if an own stage comes before one that it reads, and if `until` is not a stage.
    """
    values = sections(config)
    classes = order(values["stages"])
    names = [one.name for one in classes]
    if until is not None and until not in names:
        raise ConfigError(f"--until {until}: there is no such stage; use one of {', '.join(names)}")
    passed = classes if until is None else classes[: names.index(until) + 1]
    ingest = values[Ingest.name]
    shared = Shared(
        values["part_size"],
        values["threads"],
        ingest.max_pixels,
        values["strict_versions"],
        ingest.max_image_bytes,
        values["decode_threads"] or values["threads"],
    )
    run = RunContext(shared, vocabulary, values)
    made = [stage for one in passed if (stage := one.of_run(run)) is not None]
    if until is not None and (not made or made[-1].name != until):
        raise ConfigError(f"--until {until}: the stage is switched off; give it a section, or name another")
    for place, stage in enumerate(made):
        _check_inputs(stage, set(names))
        if later := set(stage.inputs()) & {other.name for other in made[place:]}:
            raise ConfigError(
                f"stage {stage.name} reads {', '.join(sorted(later))}, which comes after it; set `after`"
            )
    return made


def _check_inputs(stage: Stage[Any], known: set[str]) -> None:
    """Raise ConfigError for inputs that no stage has, and for a part stage without the rows of ingest."""
    if unknown := set(stage.inputs()) - known:
        raise ConfigError(f"stage {stage.name} reads {', '.join(sorted(unknown))}, which is not a stage")
    if stage.kind == PartStage.kind and Ingest.name not in stage.inputs():
        raise ConfigError(f"stage {stage.name} does not read ingest: its inputs must name it, for the rows")


def inputs_of(stage: Stage[Any], stages: list[Stage[Any]]) -> list[str]:
    """Name the inputs of a stage that are switched on."""
    active = {other.name for other in stages}
    return [name for name in stage.inputs() if name in active]
