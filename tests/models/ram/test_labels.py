import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
from tagmill.models.open_clip import OpenClip
from tagmill.models.ram import labels, store
from tagmill.models.ram.ram import Ram
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.tag_system import descriptions
from tagmill.tag_system.core.errors import ConfigError

REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "clip"
DESCRIPTIONS = REFERENCE.parents[1] / "data" / "ram_tags" / "openimages_rare_200_llm_tag_descriptions.json"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The small CLIP of the reference data in a folder that open_clip reads, and what it must give."""
    if not REFERENCE.exists():
        pytest.skip("needs the reference values of ../shared")
    said, tensors = (
        json.loads((REFERENCE / "expected.json").read_text()),
        load_file(REFERENCE / "expected.safetensors"),
    )
    weights, sizes = load_file(REFERENCE / "mini_clip.safetensors"), said["config"]
    rows, values = weights.pop("token_embedding.rows"), weights.pop("token_embedding.values")
    table = torch.zeros(sizes["vocab_size"], sizes["transformer_width"])
    table[rows.long()] = values.float()
    config = {
        "embed_dim": sizes["embed_dim"],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": sizes["image_resolution"],
            "patch_size": sizes["vision_patch_size"],
            "width": sizes["vision_width"],
            "layers": sizes["vision_layers"],
        },
        "text_cfg": {
            "context_length": sizes["context_length"],
            "vocab_size": sizes["vocab_size"],
            "width": sizes["transformer_width"],
            "heads": sizes["transformer_heads"],
            "layers": sizes["transformer_layers"],
        },
    }
    folder = tmp_path_factory.mktemp("clip")
    weights = {name: value.float() for name, value in weights.items()} | {"token_embedding.weight": table}
    save_file(weights, folder / "open_clip_model.safetensors")
    whole = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))
    clip = OpenClip(f"local-dir:{folder}", device="cpu")
    clip.load()
    return clip, said, tensors


def literal(value):
    return ast.literal_eval(value) if isinstance(value, str) else value


def test_names_become_the_official_sentences_and_embeddings(reference):
    clip, said, tensors = reference
    names = literal(said["categories"])
    assert [descriptions.sentences(name) for name in names] == literal(said["texts_per_category"])
    ours = labels.embed_names(names, clip)
    torch.testing.assert_close(ours, tensors["template_label_embed"], rtol=0, atol=1e-5)


def test_descriptions_become_the_official_embeddings(reference, tmp_path):
    clip, said, tensors = reference
    path, names = tmp_path / "descriptions.json", literal(said["description_categories"])
    path.write_text(json.dumps(literal(said["descriptions"])))
    ours = labels.embed_descriptions(descriptions.read(path, names), clip)
    torch.testing.assert_close(ours, tensors["llm_label_embed"], rtol=0, atol=1e-5)


@pytest.mark.skipif(not DESCRIPTIONS.exists(), reason="needs the official descriptions of ../shared")
def test_the_official_descriptions_are_read():
    names = [next(iter(item)) for item in json.loads(DESCRIPTIONS.read_text())]
    found = descriptions.read(DESCRIPTIONS, names[::-1])
    assert len(found) == 200
    assert {len(texts) for texts in found} == {51}
    assert found[-1][0] == "a photo of a aerial photography."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read the descriptions"),
        ('{"red": ["a"], "blue": ["b"]}', "entry 0: expected"),
        ('[{"red": ["a"]}, {"blue": "b"}]', "entry 1: expected"),
        ('[{"red": ["a"]}, {"blue": []}]', "entry 1: expected"),
        ('[{"red": ["a"]}]', "does not describe 1 tags, such as blue"),
        ('[{"red": ["a"]}, {"blue": ["a", "b"]}]', "blue has 2 descriptions, red has 1"),
    ],
    ids=["no-json", "one-object", "text", "empty", "missing", "counts"],
)
def test_descriptions_of_another_form_are_refused(tmp_path, content, message):
    (tmp_path / "texts.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        descriptions.read(tmp_path / "texts.json", ["red", "blue"])


def test_the_digest_is_that_of_texts_and_clip(tmp_path):
    first, second = (
        OpenClip(f"local-dir:{tiny_models.open_clip(tmp_path / str(i), seed=i)}") for i in (0, 1)
    )
    digests = [
        labels.digest_of(clip, texts, averaged=mean)
        for clip, texts, mean in (
            (first, [["a"]], True),
            (first, [["a"]], False),
            (first, [["b"]], True),
            (second, [["a"]], True),
        )
    ]
    assert len(set(digests)) == 4


def unit(rows, width=16):
    torch.manual_seed(3)
    return torch.nn.functional.normalize(torch.randn(rows, width), dim=1)


@pytest.fixture
def model(tmp_path, tiny_config):
    model = RamPlus(tiny_config(thresholds=(0.5,) * 6, vocabulary="ab" * 32)).eval()
    model.set_labels(unit(18))
    store.save(model, tmp_path / "model", dtype=torch.float16)
    return tmp_path / "model"


@torch.no_grad()
def test_a_model_gets_other_classes_and_scores_them(tmp_path, model):
    made = labels.Labels(("one", "two"), unit(8), "d" * 64, "v" * 64)
    labels.save(made, tmp_path / "labels.safetensors")
    read = labels.load(tmp_path / "labels.safetensors")
    assert (read.classes, read.descriptions, read.digest) == (made.classes, 4, made.digest)
    config = labels.relabel(model, read, tmp_path / "other")
    assert (config.classes, config.descriptions, config.thresholds) == (("one", "two"), 4, None)
    assert config.vocabulary == "v" * 64
    images = torch.randn(2, 3, 64, 64)
    before, after = store.load(model), store.load(tmp_path / "other")
    expected = before.score(before.encode(images), after.labels)
    torch.testing.assert_close(after(images), expected)
    assert np.allclose(after.label_embed, made.embeddings, atol=1e-3)
    with pytest.raises(ConfigError, match="exists already"):
        labels.relabel(model, read, tmp_path / "other")


def test_a_row_of_zeros_is_refused(tmp_path):
    rows = unit(6)
    rows[4] = 0
    rows[5] = float("nan")
    labels.save(labels.Labels(("one", "two", "three"), rows, "", ""), tmp_path / "labels.safetensors")
    with pytest.raises(ConfigError, match="2 rows are zero or not of length 1, the first is of three"):
        labels.load(tmp_path / "labels.safetensors")


@pytest.mark.parametrize(
    ("classes", "rows", "message"),
    [
        (("one", "two"), unit(3), "embeddings of 3 x 16 are not those of 2 classes"),
        (("one",), unit(1)[0], "embeddings of 16 are not those of 1 classes"),
        ((), unit(1), "its classes are not a list of names"),
        ((5,), unit(1), "its classes are not a list of names"),
    ],
    ids=["rows", "vector", "no-class", "number"],
)
def test_embeddings_that_are_not_those_of_the_classes_are_refused(tmp_path, classes, rows, message):
    labels.save(labels.Labels(classes, rows, "", ""), tmp_path / "labels.safetensors")
    with pytest.raises(ConfigError, match=message):
        labels.load(tmp_path / "labels.safetensors")


def test_a_broken_model_gets_no_other_classes(tmp_path, model):
    (model / "model.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(ConfigError, match="is not a RAM model"):
        labels.relabel(model, labels.Labels(("one",), unit(1), "", ""), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_files_are_refused(tmp_path, model):
    for path in (tmp_path / "none", model / "model.safetensors", model / "config.json"):
        with pytest.raises(ConfigError, match="is not a file of `tagmill vocab embed`"):
            labels.load(path)


def test_labels_that_do_not_fit_are_refused(tmp_path, model, tiny_config, golden):
    wide = labels.Labels(("one",), unit(1, 24), "", "")
    with pytest.raises(ConfigError, match=r"have 24 dimensions, .* has 16: take the CLIP"):
        labels.relabel(model, wide, tmp_path / "out")
    store.save(Ram(tiny_config(kind="ram", descriptions=1)), tmp_path / "ram")
    with pytest.raises(ConfigError, match="one embedding a class, not 2"):
        labels.relabel(tmp_path / "ram", labels.Labels(("one",), unit(2), "", ""), tmp_path / "out")
    store.save(golden.tag2text(), tmp_path / "tag2text", vocab=golden.path("vocab.txt"))
    with pytest.raises(ConfigError, match="Tag2Text learns its classes"):
        labels.relabel(tmp_path / "tag2text", wide, tmp_path / "out")
    assert not (tmp_path / "out").exists()
