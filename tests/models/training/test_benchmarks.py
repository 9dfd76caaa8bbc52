from pathlib import Path

import pytest

from tagmill.models.ram.config import EncoderConfig, RamConfig
from tagmill.models.training import benchmarks
from tagmill.tag_system.core.errors import ConfigError

LISTS = Path(__file__).parents[4] / "shared" / "data" / "ram_tags"


def written(tmp_path, annotations, tags):
    files = tmp_path / "annots.txt", tmp_path / "tags.txt"
    for path, text in zip(files, (annotations, tags), strict=True):
        path.write_text(text)
    return benchmarks.read(*files)


@pytest.mark.parametrize(
    ("annotations", "tags", "found"),
    [
        ("test/a,car,hot dog\ntest/b\n", "hot dog\ncar\n", [(1, 0), ()]),
        ("test/a,2317,3\ntest/b,3", "3\n2317", [(1, 0), (0,)]),
        ("H_1.jpg,1 2\nH_2.jpg,0", "ride horse\nrun horse\nfeed horse", [(1, 2), (0,)]),
        ("H_1.jpg,1\nH_2.jpg", "crane\ncrane", [(1,), ()]),
        ("test/a,crane\n", "crane\nlake\ncrane", [(0, 2)]),
    ],
    ids=["names", "numbers of classes", "places", "places in repeated names", "repeated name"],
)
def test_every_official_format_is_read(tmp_path, annotations, tags, found):
    assert list(written(tmp_path, annotations, tags).images.values()) == found


@pytest.mark.parametrize(
    ("annotations", "tags", "message"),
    [
        ("a,car\na,car", "car", r"annots.txt:2: a is listed twice"),
        ("a,car\nb,boat", "car", r"annots.txt:2: 'boat' is not one of the 1 tags in .*tags.txt"),
        ("a,0\nb,7", "car\nboat", "annots.txt:2: '7' is not one of the 2 tags"),
        ("", "car", "lists no image"),
        ("a,car", "car\n\nboat", "tags.txt:2 is empty"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, annotations, tags, message):
    with pytest.raises(ConfigError, match=message):
        written(tmp_path, annotations, tags)


def config(*classes):
    return RamConfig(encoder=EncoderConfig(name="none", width=8), classes=classes)


def test_classes_are_found_by_name_or_number():
    model = config("dog", "French fries", "train", "train")
    assert benchmarks.columns(["french-fries", "dog"], model.classes) == [1, 0]
    assert benchmarks.columns(["3", "2"], model.classes) == [3, 2]
    with pytest.raises(ConfigError, match="1 of the 2 tags are not classes of the model \\(cat\\)"):
        benchmarks.columns(["dog", "cat"], model.classes)
    with pytest.raises(ConfigError, match="has 'train' more than once"):
        benchmarks.columns(["train"], model.classes)
    with pytest.raises(ConfigError, match="names class 4, the model has 4"):
        benchmarks.columns(["4"], model.classes)


@pytest.mark.skipif(not LISTS.is_dir(), reason="the official lists are not here")
@pytest.mark.parametrize(
    ("name", "images", "tags", "labels"),
    [("openimages_common_214", 57_224, 214, 67_866), ("openimages_rare_200", 21_991, 200, 29_519)],
)
def test_the_official_lists_are_read(name, images, tags, labels):
    found = benchmarks.read(LISTS / f"{name}_ram_annots.txt", LISTS / f"{name}_ram_taglist.txt")
    assert (len(found.images), len(found.tags)) == (images, tags)
    assert sum(map(len, found.images.values())) == labels


@pytest.mark.skipif(not LISTS.is_dir(), reason="the official lists are not here")
def test_the_common_tags_are_classes_of_both_models():
    ram = config(*benchmarks.read_tags(LISTS / "ram_tag_list.txt"))
    tag2text = config(*benchmarks.read_tags(LISTS / "tag2text_ori_tag_list.txt"))
    names = benchmarks.read_tags(LISTS / "openimages_common_214_ram_taglist.txt")
    numbers = benchmarks.read_tags(LISTS / "openimages_common_214_tag2text_tagidlist.txt")
    assert [ram.classes[place] for place in benchmarks.columns(names, ram.classes)] == list(names)
    assert len(benchmarks.columns(numbers, tag2text.classes)) == 214
