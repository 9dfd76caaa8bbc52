"""Runs over sources whose format is a class that the config names, in a module of its own."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from runs import current_record, damaged, drive, plans, samples, shard_bytes, squares_config
from sources import COLOURS, encode, square_image
from table_formats import Table
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.sources import find_sources
from tagmill.pipeline.study.example import find_example, read_pixels
from tagmill.tag_system.core.errors import ConfigError

OWN = {"name": "own", "format": "table_formats:Table"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images, and a table and JSON lines that say the same of them; the third line leaves the folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = [(f"{name}.png", f"a {name} square; {place}") for place, name in enumerate(COLOURS)]
    for place, name in enumerate(COLOURS):
        (folder / f"{name}.png").write_bytes(encode(square_image([name], place)))
    rows.insert(2, ("../red.png", "not in the folder"))
    with open(folder / "a.csv", "w", newline="") as sink:
        csv.writer(sink).writerows([("image", "caption"), *rows])
    lines = [json.dumps({"image": image, "caption": caption}) for image, caption in rows]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return folder


def config_over(folder: Path, source: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    return squares_config(folder, {}, inputs=[source], max_dead_fraction=0.5)


def test_a_class_named_in_the_config_goes_through_a_whole_run(tmp_path, photos):
    config = config_over(tmp_path, {**OWN, "path": str(photos / "*.csv")})
    drive(config)
    run = tmp_path / "run"
    assert [sample["key"] for sample in samples(run)] == [f"own/{name}" for name in COLOURS]
    ingested = current_record(run, "ingest")
    assert [ingested.count("example", what) for what in ("in", "out", "dead")] == [6, 5, 1]
    assert damaged(run) == []
    assert drive(config).jobs == []


def test_it_gives_the_shards_that_a_built_in_format_gives_of_the_same_images_and_words(tmp_path, photos):
    own, built_in = tmp_path / "own", tmp_path / "built-in"
    drive(config_over(own, {**OWN, "path": str(photos / "a.csv")}))
    drive(config_over(built_in, {**OWN, "format": "jsonl", "path": str(photos / "a.jsonl")}))
    assert shard_bytes(own / "run") == shard_bytes(built_in / "run") != {}


def test_its_options_go_to_its_constructor_and_others_make_its_sources_anew(tmp_path, photos):
    config = config_over(tmp_path, {**OWN, "path": str(photos / "a.csv")})
    drive(config)
    tabbed = (photos / "a.csv").read_text().replace(",", "\t")
    (photos / "a.csv").write_text(tabbed)
    config_over(tmp_path, {**OWN, "path": str(photos / "a.csv"), "options": {"delimiter": "\t"}})
    assert plans(config)["ingest"].reasons == [
        'a.csv: its input\'s options {} -> {"delimiter": "\\t"}',
    ]
    drive(config)
    assert len(samples(tmp_path / "run")) == len(COLOURS)
    assert damaged(tmp_path / "run") == []


def test_a_raised_version_makes_its_sources_anew(tmp_path, photos, monkeypatch):
    config = config_over(tmp_path, {**OWN, "path": str(photos / "a.csv")})
    drive(config)
    monkeypatch.setattr(Table, "version", 2)
    assert plans(config)["ingest"].reasons == ["a.csv: its input's format_version 1 -> 2"]
    assert drive(config).tasks("ingest") == list(current_record(tmp_path / "run", "ingest").more["sources"])
    assert drive(config).jobs == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"options": {"delimiter": "--"}},
            "'--'}: delimiter is one character, got '--'",
        ),
        ({"options": {"separator": ";"}}, "unexpected keyword argument 'separator'"),
        ({"format": "table_formats:Tabel"}, "module table_formats has no Tabel"),
        ({"format": "table_formats:FileFormat"}, "abstract"),
        ({"path": "{photos}"}, "photos is a folder; name its files: {photos}/*.csv"),
        ({"path": "{photos}/*.tsv"}, "input own: no file matches {photos}/*.tsv"),
    ],
    ids=str,
)
def test_what_is_wrong_with_it_is_one_line(tmp_path, photos, changes, words):
    source = {**OWN, "path": "{photos}/a.csv"} | changes
    config = config_over(tmp_path, {**source, "path": source["path"].format(photos=photos)})
    with pytest.raises(ConfigError) as raised:
        find_sources(load_config(str(config)).inputs)
    assert words.replace("{photos}", str(photos)) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_images_may_lie_elsewhere(tmp_path, photos):
    (photos / "a.csv").rename(tmp_path / "a.csv")
    source = {**OWN, "path": str(tmp_path / "a.csv"), "images": str(photos)}
    drive(config_over(tmp_path, source), "tag=null", "localize=null", "embed=null")
    assert len(samples(tmp_path / "run")) == len(COLOURS)


def test_an_image_whose_format_cannot_be_imported_any_more_is_one_line(tmp_path, photos, monkeypatch):
    config = config_over(tmp_path, {**OWN, "path": str(photos / "a.csv")})
    drive(config, "tag=null", "localize=null", "embed=null")
    run = RunFolder(str(tmp_path / "run"))
    example = find_example(run, "own/red")
    assert read_pixels(run, example).ndim == 3
    monkeypatch.delattr("table_formats.Table")
    with pytest.raises(ConfigError, match=r"inputs\.0: format .* module table_formats has no Table"):
        read_pixels(run, example)
