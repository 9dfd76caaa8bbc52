"""RAM's annotation files: `annotations/SPLIT.json` with the four keys of the official ones, beside `images/`.

Ids are places in `tag_list.txt`, which is written beside them. `union_label_id` are the chosen tags,
`parse_label_id` those that each caption mentions.
"""

from contextlib import ExitStack
from pathlib import Path

from tagmill.pipeline.study.exports.base import Export, ExportContext
from tagmill.pipeline.study.exports.chosen import ChosenExample
from tagmill.pipeline.study.exports.classes import Classes
from tagmill.pipeline.study.exports.json_files import JsonItems
from tagmill.pipeline.study.exports.pictures import ImageFolder
from tagmill.tag_system.shard_contract import SampleCaption

NO_CAPTION = "examples without a caption, which got an empty one: RAM draws one of an image's captions"
GENERATED = "captions of which it is not said that a model generated them"
UNKNOWN_MENTION = "mentions of tags that the list of classes does not have"


class RamExport(Export):
    """The format `ram`."""

    takes = frozenset({"verdicts", "classes"})
    cannot_say = (
        *("boxes", "scores", "verdicts", "mentions", "labels", "label boxes"),
        *("reasons", "sources", "evidence", "implied", "meta"),
    )

    def __init__(self, folder: Path, context: ExportContext) -> None:
        super().__init__(folder, context)
        self._classes = Classes(self.vocabulary, self.options.classes, self.lost)
        self._images = ImageFolder(folder / "images", self.lost)
        self._lists: dict[str, JsonItems] = {}
        self._stack = ExitStack()

    def write(self, one: ChosenExample) -> None:
        """Write the image, and the item of its split's list."""
        split = one.sample.split
        if split not in self._lists:
            self._lists[split] = JsonItems(self.folder / "annotations" / f"{split}.json")
            self._stack.callback(self._lists[split].stop)
        numbers = (self._classes.number(tag.name) for tag in one.tags)
        union = [number for number in numbers if number is not None]
        captions = one.sample.captions
        self.lost[GENERATED] += sum(caption.source == "generated" for caption in captions)
        self.lost[NO_CAPTION] += not captions
        self._lists[split].add(
            {
                "image_path": f"images/{self._images.write(one)}",
                "caption": one.captions or [""],
                "union_label_id": union,
                "parse_label_id": [self._parsed(caption) for caption in captions] or [[]],
            }
        )

    def _parsed(self, caption: SampleCaption) -> list[int]:
        """Give the numbers of the tags that a caption mentions, each once."""
        tags = dict.fromkeys(mention.tag for mention in caption.mentions)
        numbers = [self._classes.known(tag) for tag in tags]
        self.lost[UNKNOWN_MENTION] += numbers.count(None)
        return [number for number in numbers if number is not None]

    def close(self) -> None:
        """End the lists, and write the tags in the order of their ids."""
        for items in self._lists.values():
            items.finish()
        self._classes.write(self.folder / "tag_list.txt")

    def stop(self) -> None:
        """Close the lists."""
        self._stack.close()
