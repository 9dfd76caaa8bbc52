"""The models of `square_models`, each of which writes down every image that it is called with."""

from collections.abc import Sequence
from pathlib import Path

from square_models import SquareCaptioner, SquareEmbedder, SquareLocalizer, SquareTagger, SquareTeacher
from tagmill.models.base import Boxes, Floats, Image


def calls(log: Path) -> dict[str, int]:
    """How many images each model was called with since the last look, by its name."""
    lines = log.read_text().splitlines() if log.exists() else []
    log.write_text("")
    return {name: lines.count(name) for name in sorted(set(lines))}


class _Counted:
    def __init__(self, log: str) -> None:
        self._log = Path(log)

    def _count(self, images: Sequence[Image]) -> None:
        with self._log.open("a") as stream:
            stream.write(f"{type(self).__name__}\n" * len(images))


class Tagger(_Counted, SquareTagger):
    def predict(self, images: Sequence[Image]) -> list[Floats]:
        self._count(images)
        return super().predict(images)


class Localizer(_Counted, SquareLocalizer):
    def predict(self, images: Sequence[Image], prompts: Sequence[Sequence[str]]) -> list[Boxes]:
        self._count(images)
        return super().predict(images, prompts)


class Embedder(_Counted, SquareEmbedder):
    def predict(self, images: Sequence[Image]) -> Floats:
        self._count(images)
        return super().predict(images)


class Captioner(_Counted, SquareCaptioner):
    def predict(self, images: Sequence[Image]) -> list[str]:
        self._count(images)
        return super().predict(images)


class Teacher(_Counted, SquareTeacher):
    def __init__(self, log: str) -> None:
        super().__init__(log)
        self._scale = 10.0

    def image_features(self, batch: Sequence[Image]) -> Floats:
        self._count(batch)
        return super().image_features(batch)


def counted(log: Path) -> dict[str, dict[str, object]]:
    """The sections of a config that name these models."""
    names = {"tag": "Tagger", "localize": "Localizer", "embed": "Embedder", "caption": "Captioner"}
    return {
        stage: {"model": f"counted_models:{name}", "options": {"log": str(log)}}
        for stage, name in names.items()
    }
