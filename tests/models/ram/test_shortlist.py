import numpy as np
import pytest
import torch

import tiny_models
from predicting import predict, prepared
from tagmill.models.base import create
from tagmill.models.open_clip import OpenClip
from tagmill.models.ram import store
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.models.ram.shortlist import Shortlist, score_some
from tagmill.models.ram.tagger import RamTagger
from tagmill.tag_system.core.errors import ConfigError

IMAGES = [
    np.random.default_rng(i).integers(0, 256, (48, 64, 3)).astype(np.uint8) // (i + 1) for i in range(3)
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_config, golden):
    torch.manual_seed(1)
    model = RamPlus(tiny_config())
    model.set_labels(torch.nn.functional.normalize(torch.randn(18, 16), dim=1))
    folder = tmp_path_factory.mktemp("models")
    store.save(model, folder / "plus")
    store.save(golden.tag2text(), folder / "tag2text", vocab=golden.path("vocab.txt"))
    tiny_models.open_clip(folder / "clip")
    return folder


def scores(folder, **options):
    tagger = create("ram", {"path": str(folder), "device": "cpu", **options})
    tagger.load()
    return np.stack(predict(tagger, IMAGES))


@pytest.mark.parametrize("kind", ["plus", "tag2text"])
def test_classes_on_the_list_score_as_ever_and_others_zero(folders, kind):
    clip = {"model": f"local-dir:{folders / 'clip'}"}
    whole = scores(folders / kind)
    some = scores(folders / kind, shortlist=3, clip=clip)
    assert ((some > 0).sum(axis=1) == 3).all()
    np.testing.assert_allclose(some[some > 0], whole[some > 0], rtol=0, atol=1e-5)
    assert some.dtype == np.float32
    every = scores(folders / kind, shortlist=10**6, clip=clip)
    np.testing.assert_allclose(every, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["plus", "tag2text"])
def test_some_classes_score_as_among_all(folders, kind):
    clip = {"model": f"local-dir:{folders / 'clip'}"}
    for options in ({}, {"shortlist": 3, "clip": clip}):
        tagger = create("ram", {"path": str(folders / kind), "device": "cpu", **options})
        tagger.load()
        batch = prepared(tagger, IMAGES)
        whole = np.stack(tagger.predict(batch))
        for places in ([2, 0], [1], [3, 1, 2]):
            some = np.stack(tagger.predict_some(batch, places))
            np.testing.assert_allclose(some, whole[:, places], rtol=0, atol=1e-5)
        assert tagger.predict([]) == tagger.predict_some([], [0]) == []


@torch.no_grad()
def test_each_image_has_a_list_of_its_own(golden):
    model, images = golden.ram_plus(), golden.tensors("inputs")["image"]
    tokens = model.encode(images)
    chosen = torch.tensor([[0, 1, 5], [2, 30, 39], [7, 8, 9]])
    some, whole = score_some(model, tokens, chosen), model.score(tokens).sigmoid()
    torch.testing.assert_close(some.gather(1, chosen), whole.gather(1, chosen), rtol=0, atol=1e-5)
    assert (some > 0).sum() == 9


def test_the_classes_most_like_the_image_are_on_the_list(folders):
    clip = OpenClip(f"local-dir:{folders / 'clip'}", device="cpu")
    clip.load()
    names = ["dog", "cat", "red car", "fire", "truck"]
    likeness = predict(clip, IMAGES) @ np.stack(clip.text(names)).T
    chosen = Shortlist(names, 2, clip).choose(prepared(clip, IMAGES))
    assert [set(row) for row in chosen.tolist()] == [
        set(row) for row in np.argsort(-likeness)[:, :2].tolist()
    ]
    assert chosen.tolist() == chosen.sort(1).values.tolist()


def test_only_with_a_shortlist_is_the_fingerprint_another(folders):
    path, clip = str(folders / "plus"), {"model": f"local-dir:{folders / 'clip'}"}
    options = [{}, {"shortlist": 4, "clip": clip}, {"shortlist": 3, "clip": clip}]
    options += [{"shortlist": 3, "clip": {**clip, "template": "{}"}}]
    assert len({RamTagger(path, **one).fingerprint() for one in options}) == 4


def test_options_that_do_not_fit_are_refused(folders):
    path = str(folders / "plus")
    with pytest.raises(ConfigError, match="shortlist must be a whole number from 1 on, got 0"):
        create("ram", {"path": path, "shortlist": 0, "clip": {}})
    for options in ({"shortlist": 3}, {"clip": {"model": "local-dir:somewhere"}}):
        with pytest.raises(ConfigError, match=r"shortlist needs clip, .* and clip needs shortlist"):
            create("ram", {"path": path, **options})
    with pytest.raises(ConfigError, match="unexpected keyword argument 'size'"):
        create("ram", {"path": path, "shortlist": 3, "clip": {"model": "x", "size": 1}})
    with pytest.raises(ConfigError, match="no model folder"):
        create("ram", {"path": path, "shortlist": 3, "clip": {"model": "local-dir:somewhere"}})
