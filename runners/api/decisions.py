"""A decision of a run, as a notebook shows it to who reviews it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import Example, read_pixels
from tagmill.pipeline.study.further_boxes import further_boxes
from tagmill.pipeline.study.picture import draw_photo
from tagmill.runners.api import html
from tagmill.tag_system.core.errors import ConfigError, DataError, InputChangedError

EVIDENCE = {
    "given": "labels that name it",
    "parsed": "captions that name it",
    "generated": "generated captions that name it",
    "tagger": "tagger, on the image",
    "boxes": "boxes found",
    "box_score": "best box",
    "own_score": "region, like the tag",
    "other_score": "region, like the best other tag",
    "other_tag": "the other tag",
    "region_score": "tagger, on the region",
    "distance": "distance to the tag's regions",
    "distance_rank": "share of them that lies nearer",
}
"""What is shown of the evidence, in words."""


class RunDecision(dict[str, Any]):
    """The decision on one tag of an example: the columns of clean's table, by name."""

    def __init__(self, values: dict[str, Any], run: RunFolder, found: Example) -> None:
        super().__init__(values)
        self._run, self._found = run, found

    def _repr_html_(self) -> str:
        why = f"rule {self['rule']}, basis {self['basis']}"
        alone = replace(self._found, decisions=[dict(self)])
        (further,) = further_boxes(self._run, [alone])
        return (
            html.heading(f"{self['tag']} ({self['kind']}) on {self._found.key}")
            + html.line(html.verdict(self["verdict"]), why)
            + html.items(boxes.said() for boxes in further.values())
            + example_picture(self._run, alone)
            + html.listed(self._captions())
            + html.table(self._evidence(), ("evidence", "value"))
        )

    def _evidence(self) -> Iterator[dict[str, Any]]:
        """Say what is known; no boxes are worth a row only where some were looked for."""
        for name, words in EVIDENCE.items():
            is_known = self["asked"] if name == "boxes" else self[name] is not None
            if is_known:
                yield {"evidence": words, "value": self[name]}

    def _captions(self) -> Iterator[str]:
        """Give the captions with the words that name the tag marked."""
        found = self._found
        named = {row["caption_index"]: self._of_tag(row["mentions"]) for row in found.parsed}
        for index, caption in enumerate(found.ingested["captions"] if found.ingested else []):
            if caption is not None:
                yield html.marked(caption, named.get(index, ()))
        if found.generated:
            yield "generated: " + html.marked(found.generated, self._of_tag(found.generated_mentions))

    def _of_tag(self, mentions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [mention for mention in mentions if mention["tag"] == self["tag"]]


def example_picture(run: RunFolder, found: Example) -> str:
    """Write the image of an example with the boxes of its decisions, or why it cannot be shown."""
    try:
        return html.picture(draw_photo(found, read_pixels(run, found)))
    except (ConfigError, DataError, InputChangedError) as error:
        return html.note(f"no picture: {error}")
