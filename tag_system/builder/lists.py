"""Names of categories inside installed packages, read as files: nothing is imported or downloaded."""

import ast
import importlib.util
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tagmill.tag_system.core import text as texts
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.kinds import Kind
from tagmill.tag_system.vocabulary import normalize_name

_ALTERNATIVES = re.compile(r"[/,;]|\bor\b")
_REMARK = re.compile(r"\(.*?\)|_\(.*?\)")
_SIDES = {"indoor", "outdoor", "interior", "exterior"}
_FOLDER_OF_LETTER = re.compile(r"^/[a-z]/")


@dataclass(frozen=True)
class CategoryList:
    """A list of categories: a text file (a name a line), or the strings of `variable` in a Python file.

    `path` begins with the package. `kind` is what its names are unless WordNet knows better; `common` says
    that the list names everyday things, so that its names need no other evidence.
    """

    name: str
    path: str
    variable: str = ""
    kind: Kind = "object"
    common: bool = True


_MMDET = "mmdet/evaluation/functional/class_names.py"
_MMPRETRAIN = "mmpretrain/datasets/categories.py"
_MMSEG = "mmseg/utils/class_names.py"
_TFDS = "tensorflow_datasets"

LISTS = (
    CategoryList("coco", "torchvision/models/_meta.py", "_COCO_CATEGORIES"),
    CategoryList("open-images-boxes", _MMDET, "oid_v6_classes"),
    CategoryList("objects365", _MMDET, "objects365v1_classes"),
    CategoryList("lvis", _MMDET, "lvis_classes"),
    CategoryList("tao", f"{_TFDS}/video/tao/labels.txt"),
    CategoryList("cifar100", _MMPRETRAIN, "CIFAR100_CATEGORIES"),
    CategoryList("quickdraw", f"{_TFDS}/datasets/quickdraw_bitmap/labels.txt"),
    CategoryList("ade20k", _MMSEG, "ade_classes"),
    CategoryList("places365", f"{_TFDS}/image_classification/categories_places365.txt", kind="scene"),
    CategoryList("places205", _MMPRETRAIN, "PLACES205_CATEGORIES", kind="scene"),
    CategoryList("sun397", _MMPRETRAIN, "SUN397_CATEGORIES", kind="scene", common=False),
    CategoryList("food101", _MMPRETRAIN, "FOOD101_CATEGORIES", common=False),
    CategoryList("caltech101", _MMPRETRAIN, "CALTECH101_CATEGORIES", common=False),
    CategoryList("imagenet", "open_clip/zero_shot_metadata.py", "IMAGENET_CLASSNAMES", common=False),
    CategoryList("imagenet-lemmas", "torchvision/models/_meta.py", "_IMAGENET_CATEGORIES", common=False),
    CategoryList(
        "kinetics400", "torchvision/models/_meta.py", "_KINETICS400_CATEGORIES", "action", common=False
    ),
)

LEMMAS = "timm/data/_info/imagenet_synset_to_lemma.txt"
"""A line for each of the 21,841 synsets of ImageNet-21k: its WordNet offset and its lemmas."""


def read_list(source: CategoryList, folder: str | None) -> set[str]:
    """The normalised names of a list; ConfigError if its package is neither in `folder` nor installed."""
    path = find_file(source.path, folder)
    text = path.read_text(encoding="utf-8")
    raw = _strings(text, source.variable, path) if source.variable else texts.lines(text)
    return {name for line in raw for name in split_names(line, paths=source.kind == "scene")}


def read_names(path: str) -> set[str]:
    """The normalised names of a user's own list: a name a line, or the last column of a CSV file."""
    try:
        lines = texts.lines(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"cannot read the list of names {path}: {exc}; give UTF-8 text, a name a line"
        ) from exc
    if path.endswith(".csv"):
        lines = [line.rsplit(",", 1)[-1].strip('"') for line in lines]
    return {name for line in lines for name in split_names(line)}


def read_lemmas(folder: str | None) -> set[str]:
    """The normalised lemmas of ImageNet-21k: names of what people found pictures for."""
    lines = texts.lines(find_file(LEMMAS, folder).read_text(encoding="utf-8"))
    return {normalize_name(name) for line in lines for name in line.split("\t")[1].split(", ")}


def find_file(path: str, folder: str | None) -> Path:
    """The file of a package, from `folder` (filled by `pip install --target`) or from the environment."""
    package, _, rest = path.partition("/")
    roots = [Path(folder) / package] if folder else []
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.submodule_search_locations:
        roots += [Path(root) for root in spec.submodule_search_locations]
    for root in roots:
        if (root / rest).is_file():
            return root / rest
    distribution = _DISTRIBUTIONS.get(package, package)
    raise ConfigError(
        f"{path} is missing: `pip install --no-deps --target FOLDER {distribution}`, give --packages FOLDER"
    )


_DISTRIBUTIONS = {
    "mmseg": "mmsegmentation",
    "open_clip": "open-clip-torch",
    "tensorflow_datasets": "tensorflow-datasets",
}


def split_names(line: str, *, paths: bool = False) -> Iterator[str]:
    """The names in a category's label: `television_set/tv_(old)` is `television set` and `tv`.

    In a list of places a slash is a path: `/t/temple/asia` is `asia temple`, `/b/bar/indoor` is `bar`.
    """
    plain = _REMARK.sub("", _FOLDER_OF_LETTER.sub("", line.strip())).replace("_", " ")
    if paths:
        first, *rest = plain.split("/")
        parts = [" ".join([*(part for part in rest if part not in _SIDES), first])]
    else:
        parts = _ALTERNATIVES.split(plain)
    for part in parts:
        name = normalize_name(part)
        if re.fullmatch(r"[a-z][a-z0-9'. ]{2,}", name) and not name.startswith(("other ", "the ")):
            yield name


def _strings(text: str, variable: str, path: Path) -> Iterable[str]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            named = node.name == variable
        else:
            named = isinstance(node, ast.Assign | ast.AnnAssign) and variable in _targets(node)
        if named:
            described = ast.get_docstring(node, clean=False) if isinstance(node, ast.FunctionDef) else None
            return [
                leaf.value
                for leaf in ast.walk(node)
                if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) and leaf.value != described
            ]
    raise ConfigError(f"{path} has no {variable}: unsupported version of the package, try an older one")


def _targets(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}
