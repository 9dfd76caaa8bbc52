"""Candidates: what every source says of an image -> the tags to decide on, and what models are asked.

This is the one place where names that models and sources use are mapped to tags of the vocabulary. What a
model is asked later stands here by its own names, so that no stage with a model depends on the vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.kinds import KINDS, Kind
from tagmill.tag_system.label_names import LabelNames
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.class_names import ClassNames, summary
from tagmill.transforms.localize import LocalizeConfig
from tagmill.transforms.on_pixels import classes_of
from tagmill.transforms.parts import Inputs, Output
from tagmill.transforms.stage import PartStage, RunContext, Shared

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("tag", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("given", pa.int32(), nullable=False),
        pa.field("parsed", pa.int32(), nullable=False),
        pa.field("generated", pa.int32(), nullable=False),
        pa.field("probe", pa.int32()),
        pa.field("tagger", pa.float32()),
        pa.field("prompts", pa.list_(pa.string()), nullable=False),
        pa.field("classes", pa.list_(pa.string()), nullable=False),
    ]
)
"""A row for each (image, tag) that some source names, by tag. `given`, `parsed`, `generated` count labels and
captions that name it, `probe` how often it was proposed as a hard negative; `tagger` is the tagger's score,
null where it does not know the tag, 0 where it lies under the tag stage's floor. `prompts` are the names that
a localizer is asked for it, none where it is not asked; `classes` those of the tagger that stand for it."""


class CandidatesConfig(Config):
    """`candidate_floor`: the score from which a tag that only the tagger names is a candidate. `kinds`: which
    kinds of tags a localizer is asked about.
    """

    candidate_floor: float = Field(0.3, ge=0, le=1)
    kinds: list[Kind] = ["object"]


@dataclass(frozen=True)
class Asked:
    """The names that the run's models know: the tagger's classes, None without a tagger; whether there is a
    localizer, and the names that it knows, None for any text.
    """

    tagger: Sequence[str] | None = None
    localizer: bool = False
    localized: Sequence[str] | None = None

    def spec(self) -> dict[str, Any]:
        """Give what decides the candidates, as JSON values."""
        named = {"tagger": self.tagger, "localizer": self.localized}
        digests = {name: value_digest(list(names)) for name, names in named.items() if names is not None}
        return ({"localizer": "any text"} if self.localizer else {}) | digests


class Candidates(PartStage[CandidatesConfig]):
    """Gathers the candidates; an image without any lives on."""

    name = "candidates"
    version = 2
    schema = SCHEMA
    slices = {"ingest": "labels"}

    def __init__(
        self,
        config: CandidatesConfig,
        shared: Shared,
        vocabulary: Vocabulary,
        asked: Asked = Asked(),
        labels: LabelNames | None = None,
    ) -> None:
        super().__init__(config, shared)
        self._vocabulary = vocabulary
        self._labels = labels or LabelNames(vocabulary)
        self._asked = asked
        self._tagger: ClassNames | None = None
        self._localizer: ClassNames | None = None

    @classmethod
    def of_run(cls, run: RunContext) -> Self:
        """Make the stage, which is never off; what decides its output stands where a model is set."""
        tag, localize = run.config["tag"], run.config["localize"]
        kinds = localize.kinds if localize else LocalizeConfig.model_fields["kinds"].default
        config = CandidatesConfig(
            candidate_floor=run.config["candidate_floor"],
            kinds=[kind for kind in KINDS if kind in kinds],  # another order is not another choice
        )
        asked = Asked(
            tagger=classes_of(tag) if tag else None,
            localizer=localize is not None,
            localized=classes_of(localize) if localize else None,
        )
        labels = LabelNames.load(run.vocabulary, run.config["label_map"])
        return cls(config, run.shared, run.vocabulary, asked, labels)

    @classmethod
    def remarks(cls, config: Mapping[str, Any]) -> Iterator[str]:
        """Name a floor that lies under that of the tagger's scores."""
        floor, tag = config["candidate_floor"], config["tag"]
        if tag and tag.score_floor > floor:
            yield f"candidate_floor: nothing scores under tag.score_floor {tag.score_floor}; lower that too"

    def inputs(self) -> tuple[str, ...]:
        """Labels are ingest's, the tags of captions parse's, scores tag's."""
        return ("ingest", "parse", "tag")

    def _spec(self) -> dict[str, Any]:
        listed = {} if self._labels.digest is None else {"label_map": self._labels.digest}
        vocabulary = self._vocabulary.digest
        return {**super()._spec(), "vocabulary": vocabulary, "asked": self._asked.spec(), **listed}

    def cut_slices(self, table: pa.Table) -> dict[str, pa.Table]:
        """Cut out what a localizer and a tagger are asked."""
        asked = table.filter(pc.greater(pc.list_value_length(table["prompts"]), 0))
        return {name: asked.select(["row", "tag", name]) for name in ("prompts", "classes")}

    def setup(self) -> None:
        """Map the models' classes to tags."""
        if self._asked.tagger is not None:
            self._tagger = ClassNames(self._asked.tagger, self._vocabulary)
        if self._asked.localized is not None:
            self._localizer = ClassNames(self._asked.localized, self._vocabulary)

    def process(self, inputs: Inputs) -> Output:
        """Gather the candidates of one part."""
        if (self._tagger is None) != (self._asked.tagger is None):
            raise RuntimeError("call setup() before process()")
        records = [record for row in inputs.rows for record in self._of_row(inputs, row)]
        table = pa.Table.from_pylist(records, SCHEMA)
        notes = {}
        if self._tagger is not None:
            unmapped = self._tagger.unmapped
            notes = {"unmapped_classes": len(unmapped), "unmapped": summary(unmapped)}
        return Output(table, len(inputs.rows), notes=notes)

    def _of_row(self, inputs: Inputs, row: int) -> Iterator[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}

        def count(tag: str, source: str) -> None:
            found.setdefault(tag, self._nothing(tag))[source] += 1

        for label in inputs.examples[row]["labels"]:
            tag = self._labels.resolve(label["name"])
            if tag is not None:
                count(tag.name, "given")
        for caption in inputs.of_row("parse", row):
            for name in {mention["tag"] for mention in caption["mentions"]}:
                count(name, "parsed" if caption["source"] == "given" else "generated")
        known = self._tagger.tag_of if self._tagger else {}
        for record in inputs.of_row("tag", row):
            name, score = known.get(record["name"]), record["score"]
            if name is not None and (name in found or score >= self.config.candidate_floor):
                candidate = found.setdefault(name, self._nothing(name))
                candidate["tagger"] = max(candidate["tagger"], score)
        for name in sorted(found):
            yield {"row": row, "tag": name} | found[name]

    def _nothing(self, tag: str) -> dict[str, Any]:
        """Make the record of a candidate that no source has named yet."""
        known = self._vocabulary.resolve(tag)
        if known is None:
            raise KeyError(f"candidate {tag!r} is not in the vocabulary")
        classes = self._tagger.names_of(tag) if self._tagger else []
        return {
            "kind": known.kind,
            **dict.fromkeys(("given", "parsed", "generated"), 0),
            "tagger": 0.0 if classes else None,
            "prompts": self._prompts(tag) if known.kind in self.config.kinds else [],
            "classes": classes,
        }

    def _prompts(self, tag: str) -> list[str]:
        if not self._asked.localizer:
            return []
        return [tag] if self._localizer is None else self._localizer.names_of(tag)
