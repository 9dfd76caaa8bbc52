import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from predicting import predict
from tagmill.models.base import create
from tagmill.models.ram import store
from tagmill.models.ram.captioner import Tag2TextCaptioner
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.tag_system.core.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden):
    folder = tmp_path_factory.mktemp("models") / "tag2text"
    store.save(golden.tag2text(), folder, vocab=golden.path("vocab.txt"))
    return folder


def loaded(folder, **options):
    captioner = create("tag2text", {"path": str(folder), "device": "cpu", **options})
    captioner.load()
    return captioner


def picture(height, width, seed):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


IMAGES = [picture(40, 56, 0), np.full((20, 30, 3), 200, np.uint8), picture(64, 64, 2) // 3]


@pytest.mark.parametrize("options", [{}, {"beams": 1}, {"max_length": 12}], ids=["beams", "greedy", "short"])
def test_images_get_the_caption_they_get_alone(folder, options):
    captioner = loaded(folder, **options)
    captions = predict(captioner, IMAGES)
    assert all(isinstance(caption, str) and caption for caption in captions)
    assert [predict(captioner, [image])[0] for image in IMAGES] == captions
    assert predict(captioner, []) == []


def test_tags_guide_the_caption(folder):
    everything, nothing = loaded(folder, threshold=0.0), loaded(folder, threshold=1.0)
    assert everything._tags(np.full(40, 0.5)) == [
        name for i, name in enumerate(everything._config.classes) if i not in everything._config.silent
    ]
    assert nothing._tags(np.full(40, 0.5)) == []
    assert predict(everything, IMAGES) != predict(nothing, IMAGES)


def test_the_same_folder_is_a_tagger(folder):
    tagger = create("ram", {"path": str(folder), "device": "cpu"})
    tagger.load()
    assert predict(tagger, IMAGES)[0].shape == (40,)
    assert len(tagger.thresholds) == 40


def test_the_fingerprint_goes_by_files_and_options(folder):
    plain = Tag2TextCaptioner(str(folder)).fingerprint()
    assert plain == Tag2TextCaptioner(str(folder), device="cpu").fingerprint()
    others = [{"beams": 4}, {"length": "all"}, {"threshold": 0.5}, {"dtype": "bfloat16"}]
    prints = [Tag2TextCaptioner(str(folder), **options).fingerprint() for options in others]
    assert len({plain, *prints}) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams must be at least 1"),
        ({"beams": 186}, "beams must be at most 185, got 186"),
        ({"threshold": float("nan")}, "threshold must be from 0 to 1, got nan"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty over 0"),
        ({"min_length": 31}, "at least min_length"),
        ({"max_length": 65}, "max_length must be at most 64, got 65"),
        ({"length": "sum"}, "length must be generated or all"),
        ({"dtype": "int8"}, "dtype must be one of"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_options_are_checked(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        create("tag2text", {"path": str(folder), **options})


def test_the_folder_is_checked(folder, tmp_path, tiny_config):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    with (broken / "vocab.txt").open("a") as stream:
        stream.write("one-more\n")
    with pytest.raises(ConfigError, match="another number of word pieces"):
        loaded(broken)
    (broken / "vocab.txt").unlink()
    with pytest.raises(ConfigError, match=r"has no vocab\.txt"):
        loaded(broken)
    store.save(RamPlus(tiny_config()), tmp_path / "plus")
    (tmp_path / "plus" / "vocab.txt").write_text("")
    with pytest.raises(ConfigError, match="of kind ram_plus without a text side"):
        loaded(tmp_path / "plus")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": None}, "tag2text has a text side"),
        ({"kind": "ram_plus"}, "ram_plus has none"),
        ({"descriptions": 2}, "one embedding a class"),
        ({"silent": [40]}, "silent has an index"),
        ({"text": {"heads": 5, "layers": 3, "inner": 96}}, "heads that divide 48"),
    ],
    ids=["no-text", "plus", "descriptions", "silent", "heads"],
)
def test_a_config_whose_parts_do_not_fit_is_refused(folder, tmp_path, changes, message):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    values = json.loads((broken / "config.json").read_text()) | changes
    (broken / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=message):
        Tag2TextCaptioner(str(broken))


@torch.no_grad()
def test_the_text_side_is_stored_once_and_comes_back(folder, golden):
    model, found = golden.tag2text(), store.load(folder)
    assert found.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in model.state_dict().items())


def test_constructing_imports_no_torch(folder):
    code = (
        "import sys; from tagmill.models.base import create; "
        f"create('tag2text', {{'path': {str(folder)!r}}}).fingerprint(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
