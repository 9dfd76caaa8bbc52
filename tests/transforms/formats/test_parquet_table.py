"""Parquet tables of each kind that is in the wild, through runs."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runs import (
    current_folder,
    current_record,
    damaged,
    drive,
    plans,
    rows_of,
    samples,
    shard_bytes,
    squares_config,
    tagmill,
)
from sources import COLOURS, encode, square_image
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import find_example, read_pixels
from tagmill.tag_system.core.errors import ConfigError, InputChangedError
from tagmill.transforms import images, parquet_images

NAMES = [*COLOURS, *COLOURS]
IMAGES = [encode(square_image([name], place)) for place, name in enumerate(NAMES)]
CAPTIONS = [f"a {name} square" for name in NAMES]
PARSE_ONLY = {"tag": None, "localize": None, "embed": None, "cluster": None}
STRUCT = [{"bytes": data, "path": f"{place}.png"} for place, data in enumerate(IMAGES)]


@pytest.fixture
def over(tmp_path):
    """Write tables, and the config of a run over them."""

    def over(*tables, source=(), rows=4, **changes):
        (tmp_path / "data").mkdir(exist_ok=True)
        for number, table in enumerate(tables):
            made = table if isinstance(table, pa.Table) else pa.table(table)
            pq.write_table(made, tmp_path / "data" / f"{number}.parquet", row_group_size=rows)
        it = {"name": "it", "format": "parquet", "path": str(tmp_path / "data" / "*.parquet"), **dict(source)}
        return squares_config(tmp_path, {}, inputs=[it], **{"ingest": {"val_fraction": 0}, **changes})

    return over


def hugging_face(table, **features):
    return table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}})})


def test_a_dataset_of_hugging_face_goes_through_a_whole_run(tmp_path, over):
    label = [sorted(COLOURS).index(name) for name in NAMES]
    label[1] = -1
    table = pa.table({"image": STRUCT, "text": CAPTIONS, "label": label, "score": [float("nan")] * 10})
    config = over(hugging_face(table, label={"_type": "ClassLabel", "names": sorted(COLOURS)}))
    drive(config)
    run = tmp_path / "run"
    rows = rows_of(run, "ingest")
    assert [row["key"] for row in rows[:2]] == ["it/0/000000000", "it/0/000000001"]
    assert [row["captions"] for row in rows] == [[caption] for caption in CAPTIONS]
    assert [[one["name"] for one in row["labels"]] for row in rows] == [
        [name] if place != 1 else [] for place, name in enumerate(NAMES)
    ]
    assert json.loads(rows[0]["meta"]) == {"score": None}
    assert [sample["key"] for sample in samples(run)] == [row["key"] for row in rows]
    assert damaged(run) == []
    assert drive(config).jobs == []
    opened = RunFolder(str(run))
    pixels = read_pixels(opened, find_example(opened, "it/0/000000006"))
    assert np.array_equal(pixels, np.array(square_image([NAMES[6]], 6)))


def test_large_row_groups_are_copied_once_and_give_the_same_shards(tmp_path, over, monkeypatch):
    table = {"image": STRUCT, "caption": CAPTIONS}
    drive(over(table, run=str(tmp_path / "one")))
    config = over(table, source={"options": {"copy_over": 0}}, run=str(tmp_path / "two"))
    (reason,) = plans(config)["ingest"].reasons
    assert "bytes of images are copied into the run" in reason
    monkeypatch.setattr(parquet_images, "GroupReader", None)  # nothing is read from the table again
    drive(config)
    one, two = tmp_path / "one", tmp_path / "two"
    assert shard_bytes(one) == shard_bytes(two) != {}
    copies = sorted(current_folder(two, "ingest").glob("*.images"))
    assert sum(path.stat().st_size for path in copies) == sum(map(len, IMAGES))
    assert damaged(two) == []
    two.rename(tmp_path / "moved")
    run = RunFolder(str(tmp_path / "moved"))
    assert read_pixels(run, find_example(run, "it/0/000000006")).shape == (80, 96, 3)
    moved = tmp_path / "moved" / copies[0].relative_to(two)
    moved.write_bytes(moved.read_bytes()[:-1] + b"!")
    assert [moved.name in line for line in damaged(run.root)] == [True]


EXCLUDED = (1, 6)


@pytest.mark.parametrize("copy_over", [0, 2_000], ids=["all", "some"])
def test_a_copied_image_that_is_excluded_leaves_the_run_and_the_others_stay(tmp_path, over, copy_over):
    """Also where a part has images in its table beside copied ones."""
    table = {"image": STRUCT, "caption": CAPTIONS}
    exclude = tmp_path / "exclude.txt"
    exclude.touch()
    source = {"options": {"copy_over": copy_over}, "exclude": str(exclude)}
    config = over(table, source=source, part_size=10)
    whole = pa.table(table)
    with pq.ParquetWriter(tmp_path / "data" / "0.parquet", whole.schema) as writer:
        for rows in (whole.slice(0, 2), whole.slice(2)):  # row groups, the second one large
            writer.write_table(rows)
    drive(config)
    expected = {one["key"]: one["sha256"] for one in samples(tmp_path / "run")}
    gone = [expected.pop(f"it/0/00000000{number}") for number in EXCLUDED]
    exclude.write_text("\n".join(gone))
    drive(config)
    run = tmp_path / "run"
    assert {one["key"]: one["sha256"] for one in samples(run)} == expected
    assert damaged(run) == []
    assert tagmill("verify", run, "--absent", exclude).returncode == 5
    assert tagmill("gc", run).returncode == 0
    assert tagmill("verify", run, "--absent", exclude).returncode == 0
    left = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
    assert not any(IMAGES[number] in data for number in EXCLUDED for data in left)


def test_each_row_group_is_read_once_a_part(tmp_path, over, monkeypatch):
    read = []
    whole = pq.ParquetFile.read_row_group

    def noting(self, group, columns, **options):
        read.append((group, columns))
        return whole(self, group, columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noting)
    config = over({"image": STRUCT, "caption": CAPTIONS}, part_size=10)
    drive(config, "localize=null", "embed=null", "cluster=null")
    assert read == [(group, ["image"]) for _ in ("tag", "shards") for group in range(3)]


def test_img2datasets_parquet_is_read_by_its_keys(tmp_path, over):
    table = {
        "jpg": [*IMAGES[:2], None],
        "caption": [CAPTIONS[0], None, "x"],
        "key": ["a", "b", "c"],
        "url": ["u"] * 3,
    }
    drive(over(table, max_dead_fraction=1.0, **PARSE_ONLY))
    rows = rows_of(tmp_path / "run", "ingest")
    assert [(row["key"], row["captions"]) for row in rows] == [("it/a", [CAPTIONS[0]]), ("it/b", [])]
    assert current_record(tmp_path / "run", "ingest").count("example", "dead") == 1


def test_a_table_beside_images_names_them_by_path_and_shards_may_lack_columns(tmp_path, over):
    for place in range(4):
        (tmp_path / f"{place}.png").write_bytes(IMAGES[place])
    objects = {"bbox": [[1, 2, 3, 4]], "category": [1]}
    classes = {"_type": "ClassLabel", "names": ["x", "dog"]}
    features = {"_type": "Sequence", "feature": {"bbox": {}, "category": classes}}
    boxed = pa.table({"path": ["2.png", "../3.png"], "objects": [objects] * 2})
    config = over(
        {"path": ["0.png", "1.png"], "TEXT": CAPTIONS[:2], "WIDTH": [96, 96]},
        hugging_face(boxed, objects=features),
        source={"images": str(tmp_path), "labels": "objects"},
        max_dead_fraction=1.0,
        **PARSE_ONLY,
    )
    drive(config)
    rows = rows_of(tmp_path / "run", "ingest")
    assert [(row["key"], row["captions"]) for row in rows] == [
        ("it/0", [CAPTIONS[0]]),
        ("it/1", [CAPTIONS[1]]),
        ("it/2", []),
    ]
    assert rows[2]["labels"] == [{"name": "dog", "box": [1, 2, 4, 6]}]
    assert damaged(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("table", "source", "words"),
    [
        ({"id": [1], "words": ["x"]}, {}, r"no column of images; saw id, words; set `image: \[id\]`"),
        ({"jpg": [b"x"]}, {"image": ["a"]}, r"no column of images called a; saw jpg; set `image: \[jpg\]`"),
        (
            {"url": ["http://x/a.jpg"], "caption": ["x"]},
            {},
            "--input_format parquet --url_col url",
        ),
        ({"jpg": [b"x"]}, {"images": "/tmp"}, "`jpg` .* holds the bytes of its images; take `images` out"),
    ],
    ids=["no images", "another name", "urls", "bytes and a folder"],
)
def test_a_table_without_images_is_refused_in_a_line(over, table, source, words):
    with pytest.raises(ConfigError, match=words) as raised:
        drive(over(table, source=source))
    assert "\n" not in str(raised.value)


def test_another_file_and_a_damaged_one_say_what_they_are(tmp_path, over):
    config = over({"image": STRUCT, "caption": CAPTIONS}, max_dead_fraction=1.0, **PARSE_ONLY)
    path = tmp_path / "data" / "0.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    (tmp_path / "data" / "1.parquet").write_bytes(data[:4] + bytes(500) + data[504:])
    drive(config)
    folder = current_folder(tmp_path / "run", "ingest")
    dead = [row for path in folder.glob("dead/*") for row in pq.read_table(path).to_pylist()]
    assert {row["reason"] for row in dead} == {"source_unreadable", "source_truncated"}
    path.write_bytes(b"a,b\n1,2\n")
    with pytest.raises(ConfigError, match=r"0.parquet is not Parquet"):
        drive(config, accept_changes=True)


def test_a_table_that_changed_under_a_run_is_told(tmp_path, over):
    config = over({"image": STRUCT, "caption": CAPTIONS})
    drive(config, "tag=null", "localize=null", "embed=null", "cluster=null")
    row = rows_of(tmp_path / "run", "ingest")[9]
    over({"image": STRUCT[:5], "caption": CAPTIONS[:5]})
    with pytest.raises(InputChangedError, match="another than was ingested"):
        list(images.read_references([row["image"]], str(tmp_path / "data")))
