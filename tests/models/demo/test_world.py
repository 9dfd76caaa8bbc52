from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

import drawn_sprites
from demo_recipe import backbone, clip, corpus, scenes, tagger, things
from demo_recipe.captions import caption, plural, true_caption
from demo_recipe.sprites import Sprites
from demo_recipe.words import tokenizer
from demo_recipe.world import OVERLAP, RANGES, SIZE, World, _hidden
from tagmill.tag_system.core.files import sha256
from tagmill.tag_system.parser import CaptionParser
from tagmill.tag_system.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_sprites.write(tmp_path_factory.mktemp("sprites") / "fluent3d.tar")


@pytest.fixture(scope="module")
def world(tar: Path) -> World:
    return World(Sprites(tar))


def test_a_number_is_a_scene(world: World) -> None:
    assert world.scene(7) == world.scene(7)
    assert world.scene(7).jpeg != world.scene(8).jpeg
    assert world.scene(7).image.shape == (SIZE, SIZE, 3)


def test_ranges_share_no_scene() -> None:
    numbers = [number for numbers in RANGES.values() for number in (numbers[0], numbers[-1])]
    assert numbers == sorted(numbers)


def test_boxes_lie_inside_and_hide_little(world: World) -> None:
    for number in range(100):
        boxes = [placed.box for placed in world.scene(number).placed]
        for index, (x1, y1, x2, y2) in enumerate(boxes):
            assert 0 <= x1 < x2 <= SIZE
            assert 0 <= y1 < y2 <= SIZE
            assert all(_hidden(boxes[index], other) <= OVERLAP for other in boxes[:index])


def test_a_box_shows_its_thing(world: World) -> None:
    """The picture without its things differs from the picture inside of the boxes, and hardly elsewhere."""
    scene = next(s for s in map(world.scene, range(100)) if len(s.placed) == 1 and s.place == "room")
    x1, y1, x2, y2 = (int(v) for v in scene.placed[0].box)
    pixels = scene.image.astype(float)
    inside = pixels[y1:y2, x1:x2].reshape(-1, 3).std(axis=0).mean()
    assert inside > 10


def test_every_tag_of_the_world_is_a_tag_of_its_kind() -> None:
    vocabulary = Vocabulary.load()
    kinds = {thing.name: "object" for thing in things.things()}
    kinds |= dict.fromkeys(things.PLACES, "scene") | dict.fromkeys(things.COLOURS, "attribute")
    for name in things.names():
        tag = vocabulary.resolve(name)
        assert tag is not None
        assert (tag.name, tag.kind) == (name, kinds[name])
    assert {thing.look_alike for thing in things.things()} <= set(things.names())


def test_the_parser_reads_true_captions(world: World) -> None:
    vocabulary = Vocabulary.load()
    numbers = range(200)
    drawn = [world.scene(number) for number in numbers]
    texts = [true_caption(scene, number) for scene, number in zip(drawn, numbers, strict=True)]
    objects = {thing.name for thing in things.things()}
    found = missed = 0
    for scene, mentions in zip(drawn, CaptionParser(vocabulary).parse(texts), strict=True):
        read = {mention.tag for mention in mentions}
        true = set(scene.tags) & objects
        found += len(read & true)
        missed += len(true - read)
        assert not (read & objects) - true
    assert missed < 0.02 * found


def test_captions_err_in_the_ways_that_the_world_says(world: World) -> None:
    often = rarely = said_often = said_rarely = 0
    for number in range(500):
        scene = world.scene(number)
        text = caption(scene, number)
        assert text == caption(scene, number)
        for placed in scene.placed:
            thing = things.things()[placed.label]
            said = thing.name in text or plural(thing.name) in text or thing.look_alike in text
            if thing.mention_rate > 0.5:
                often, said_often = often + 1, said_often + said
            elif thing.mention_rate < 0.2:
                rarely, said_rarely = rarely + 1, said_rarely + said
    assert said_often > 0.75 * often
    assert said_rarely < 0.2 * rarely


def test_every_word_of_a_name_is_one_token() -> None:
    read = tokenizer()
    plurals = [plural(thing.name) for thing in things.things()]
    for word in " ".join([*things.names(), *plurals]).split():
        assert len(read.tokenize(word)) == 1, word


def test_the_corpus_is_a_webdataset_with_its_truth(world: World, tmp_path: Path) -> None:
    corpus.write(world, range(10, 16), tmp_path)
    again = tmp_path / "again"
    corpus.write(world, range(10, 16), again)
    assert sha256(str(tmp_path / "scenes-000000.tar")) == sha256(str(again / "scenes-000000.tar"))
    samples = list(webdataset.WebDataset(str(tmp_path / "scenes-000000.tar"), shardshuffle=False))
    truth = pq.read_table(tmp_path / corpus.TRUTH).to_pylist()
    assert [sample["__key__"] for sample in samples] == [row["key"] for row in truth]
    scene = world.scene(12)
    assert samples[2]["jpg"] == scene.jpeg
    assert dict(zip(truth[2]["tags"], truth[2]["kinds"], strict=True)) == scene.tags


def test_a_scene_set_is_what_the_scenes_are(world: World, tar: Path, tmp_path: Path) -> None:
    rendered = scenes.load(tmp_path, "few", range(20, 24), tar, None, 1)
    opened = scenes.load(tmp_path, "few", range(20, 24), tar, None, 1)
    for row, number in enumerate(range(20, 24)):
        scene = world.scene(number)
        assert np.array_equal(opened.images[row], scene.image)
        assert {things.names()[column] for column in opened.targets()[row].nonzero()[0]} == set(scene.tags)
    assert rendered.captions == opened.captions


def test_the_small_models_train_and_load(tar: Path, tmp_path: Path) -> None:
    data = scenes.load(tmp_path, "some", range(300), tar, None, 1)
    lines: list[dict[str, object]] = []
    recipe = backbone.BackboneRecipe(cycles=((2, 1e-3), (2, 1e-3)), batch=8)
    trunk = backbone.train(data, tmp_path / "trunk.safetensors", recipe, lines.append)
    clip.train(
        data, tmp_path / "clip", clip.ClipRecipe(steps=2, scenes=4), lines.append, tmp_path / "clip.pt"
    )
    found = clip.evaluate(tmp_path / "clip", data)
    assert 0 <= found["top1"] <= found["top5"] <= 1
    recipe_of_tagger = tagger.TaggerRecipe(steps=2, batch=8, crops=2)
    tagger.train(
        data,
        trunk,
        tmp_path / "clip",
        tmp_path / "tagger",
        recipe_of_tagger,
        lines.append,
        tmp_path / "tagger.pt",
    )
    assert 0 <= tagger.evaluate(tmp_path / "tagger", data)["map_object"] <= 1
