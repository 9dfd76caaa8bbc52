import pytest
import torch
from safetensors.torch import load_file

from disks import full_disk
from tagmill.models.ram import official, store
from tagmill.models.ram.config import EncoderConfig, HeadConfig, RamConfig
from tagmill.models.ram.convert import convert, infer, info
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary


@pytest.fixture
def checkpoint(tmp_path, golden):
    """RAM++ as it is published: pickled, with buffers, and with the state of its training."""
    weights = load_file(golden.path("ram_plus.safetensors"))
    weights["visual_encoder.layers.0.blocks.1.attn_mask"] = torch.zeros(64, 9, 9)
    path = tmp_path / "ram_plus.pth"
    torch.save({"model": weights, "epoch": 4}, path)
    return path


@torch.no_grad()
def test_a_checkpoint_becomes_a_folder(tmp_path, golden, checkpoint):
    wanted = golden.config()
    found = convert(checkpoint, tmp_path / "out", classes=wanted.classes, thresholds=wanted.thresholds)
    names = Vocabulary.from_text("\n".join(wanted.classes), "tags")
    assert found.config == wanted.model_copy(update={"vocabulary": names.digest})
    assert found.dropped == {"visual_encoder.layers.0.blocks.1.attn_mask": "follows from the image size"}
    images = golden.tensors("inputs")["image"]
    assert torch.equal(store.load(tmp_path / "out")(images), golden.ram_plus()(images))


def test_info_tells_what_a_folder_holds(tmp_path, golden, checkpoint):
    config = golden.config()
    convert(checkpoint, tmp_path / "out", classes=config.classes, dtype=torch.float16)
    found = info(tmp_path / "out")
    assert found.config.kind == "ram_plus"
    assert found.parameters == sum(value.numel() for value in golden.ram_plus().parameters())
    assert 2 * found.parameters < found.bytes < 2.1 * found.parameters


def published_tag2text(golden):
    """Tag2Text as it is published: with an image encoder, and with its tied tensors repeated."""
    plus = load_file(golden.path("ram_plus.safetensors"))
    weights = load_file(golden.path("tag2text.safetensors"))
    weights |= {key: value for key, value in plus.items() if key.startswith("visual_encoder.")}
    for key in [key for key in weights if key.startswith("tagging_head.")]:
        weights[key.replace("tagging_head", "tag_encoder")] = weights[key]
    bias = weights["text_decoder.cls.predictions.bias"]
    return weights | {"text_decoder.cls.predictions.decoder.bias": bias}


def test_tag2text_keeps_its_ties_and_takes_its_vocabulary(tmp_path, golden):
    path, out, classes = tmp_path / "tag2text.pth", tmp_path / "out", golden.config().classes
    torch.save({"model": published_tag2text(golden)}, path)
    with pytest.raises(ConfigError, match="needs vocab"):
        convert(path, out, classes=classes, text_heads=6)
    found = convert(path, out, classes=classes, vocab=golden.path("vocab.txt"), text_heads=6)
    changes = {"thresholds": None, "silent": ()}
    found_config = found.config.model_copy(update={"vocabulary": None})
    assert found_config == golden.tag2text_config().model_copy(update=changes)
    reason = found.dropped["tag_encoder.encoder.layer.0.crossattention.self.query.weight"]
    assert reason == "the same as head.layers.0.attention.query.weight"
    ours = store.load(out).text.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in golden.tag2text().text.state_dict().items())


def test_a_tie_that_is_broken_is_refused(tmp_path, golden):
    weights = published_tag2text(golden)
    weights["text_decoder.cls.predictions.decoder.bias"] = torch.ones(370)
    torch.save({"model": weights}, tmp_path / "odd.pth")
    with pytest.raises(ConfigError, match=r"two tensors for text\.decoder\.bias"):
        convert(tmp_path / "odd.pth", tmp_path / "out", classes=golden.config().classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["one", "two", "three"]}, "3 classes do not fit 200 label embeddings of a ram_plus"),
        ({"classes": []}, "0 classes do not fit"),
        ({"thresholds": [0.5]}, "1 thresholds for 40 classes"),
        ({"head_heads": 5}, "must be a multiple of heads"),
    ],
    ids=["classes", "no-class", "thresholds", "heads"],
)
def test_what_does_not_fit_is_refused(tmp_path, golden, checkpoint, options, message):
    options = {"classes": golden.config().classes} | options
    with pytest.raises(ConfigError, match=message):
        convert(checkpoint, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_classes_without_label_embeddings_are_refused(tmp_path, golden):
    weights = load_file(golden.path("ram_plus.safetensors"))
    weights["label_embed"][15:] = 0
    torch.save({"model": weights}, tmp_path / "new_list.pth")
    message = "185 of 200 label embeddings are zero, the first is of keyboard"
    with pytest.raises(ConfigError, match=message):
        convert(tmp_path / "new_list.pth", tmp_path / "out", classes=golden.config().classes)
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_none_are_refused(tmp_path, golden):
    weights = load_file(golden.path("ram_plus.safetensors"))
    weights["fc.bias"][0] = float("nan")
    torch.save({"model": weights}, tmp_path / "broken.pth")
    with pytest.raises(
        ConfigError, match=r"1 tensors have NaN or infinite numbers \(score_projection\.bias\)"
    ):
        convert(tmp_path / "broken.pth", tmp_path / "out", classes=golden.config().classes)


def test_a_vocabulary_without_the_classes_is_refused(tmp_path, golden, checkpoint):
    classes = golden.config().classes
    known = Vocabulary.from_text("\n".join(classes[:-2]), "tags")
    with pytest.raises(
        ConfigError, match=f"2 of 40 classes are not in the vocabulary, the first is {classes[-2]}"
    ):
        convert(checkpoint, tmp_path / "out", classes=classes, vocabulary=known)


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path, golden, checkpoint):
    with pytest.raises(ConfigError, match=r"cannot write .*out: .*File too large"), full_disk(20_000):
        convert(checkpoint, tmp_path / "out", classes=golden.config().classes)
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.name}


def test_the_vocabulary_of_the_classes_is_named(tmp_path, golden, checkpoint):
    config = golden.config()
    known = Vocabulary.from_text("\n".join(f"{name}\tscene" for name in config.classes), "tags")
    found = convert(checkpoint, tmp_path / "out", classes=config.classes, vocabulary=known)
    assert found.config.vocabulary == known.digest


def test_nothing_is_overwritten(tmp_path, golden, checkpoint):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        convert(checkpoint, tmp_path / "out", classes=golden.config().classes)


def test_weights_of_something_else_are_refused():
    with pytest.raises(ConfigError, match="not a RAM model: it lacks"):
        infer({"encoder.trunk.norm.bias": torch.zeros(4)}, ["one"])


def of_sizes(image_size, window, depths=(2, 2, 1), head=(24, 2, 3), **arguments):
    """A RAM++ with random weights whose sizes are not those of the reference data."""
    torch.manual_seed(0)
    swin = {"window_size": window, "embed_dim": 8, "depths": depths, "num_heads": (1, 2, 4, 8)[: len(depths)]}
    width = 8 * 2 ** (len(depths) - 1)
    hidden, heads, layers = head
    config = RamConfig(
        image_size=image_size,
        encoder=EncoderConfig(name="swin_large_patch4_window12_384", arguments=swin | arguments, width=width),
        dimension=16,
        head=HeadConfig(hidden=hidden, heads=heads, layers=layers, inner=40),
        classes=[str(i) for i in range(7)],
        descriptions=4,
    )
    model = store.build(config).eval()
    model.set_labels(torch.nn.functional.normalize(torch.randn(28, 16), dim=1))
    return model


@torch.no_grad()
@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no-masks"])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (of_sizes(96, 3), {"image_size": 96}),
        (of_sizes(64, 4), {"image_size": 64}),
        (of_sizes(32, 4), {}),
        (of_sizes(64, 2, depths=(2, 1, 3, 1)), {}),
        (of_sizes(112, 7, depths=(1, 2), head=(12, 3, 1)), {"image_size": 112}),
        (of_sizes(64, 4, patch_size=2, mlp_ratio=2.0), {"image_size": 64}),
    ],
    ids=["windows", "wide", "small-last-map", "four-stages", "first-stage-without-mask", "patches"],
)
def test_all_sizes_are_read_from_the_checkpoint(tmp_path, model, options, masks):
    published = official.weights(model)
    if not masks:
        published = {key: value for key, value in published.items() if not key.endswith("attn_mask")}
    torch.save({"model": published}, tmp_path / "some.pth")
    options = {} if masks else options
    heads = model.config.head.heads
    found = convert(
        tmp_path / "some.pth", tmp_path / "out", classes=model.config.classes, head_heads=heads, **options
    )
    assert found.guessed == (not masks and not options)
    apart = {"head", "vocabulary"}
    assert found.config.model_dump(exclude=apart) == model.config.model_dump(exclude=apart)
    size = model.config.image_size
    images = torch.randn(2, 3, size, size)
    assert torch.equal(store.load(tmp_path / "out")(images), model(images))


@torch.no_grad()
def test_another_image_size_takes_another_window(tmp_path, golden, checkpoint):
    config = golden.config()
    with pytest.raises(ConfigError, match=r"windows of 3 do not fit an image of 128, .* 32, 16, 8, 4"):
        convert(checkpoint, tmp_path / "out", classes=config.classes, image_size=128)
    found = convert(checkpoint, tmp_path / "out", classes=config.classes, image_size=128, window=4)
    assert (found.config.image_size, found.config.encoder.arguments["window_size"]) == (128, 4)
    images = torch.randn(1, 3, 128, 128)
    assert torch.equal(
        store.load(tmp_path / "out")(images), golden.ram_plus(window=4, image_size=128)(images)
    )
