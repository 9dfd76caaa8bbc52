import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagmill.models.training import datasets
from tagmill.tag_system.core.errors import ConfigError, DamageError


def change_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_index(folder, change):
    path = folder / "train-000000.index.parquet"
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)


def test_places_are_where_the_members_lie(shards):
    dataset = datasets.open_dataset(str(shards), "train")
    assert dataset.counts == (9, 5)
    assert dataset.places.shape == (14,)
    image, size, record, record_size = dataset.places[9].item()
    data = (shards / "train-000001.tar").read_bytes()
    assert data[image : image + 4] == b"\x89PNG"
    assert len(data[image : image + size]) == size
    assert json.loads(data[record : record + record_size])["split"] == "train"


def test_a_folder_without_manifest_is_refused(copied, tmp_path):
    (copied / "manifest.json").unlink()
    for folder in (copied, tmp_path / "nowhere", copied / "train-000000.tar"):
        with pytest.raises(ConfigError, match=r"no manifest\.json.*RUN/shards/GENERATION") as caught:
            datasets.open_dataset(str(folder), "train")
        assert "\n" not in str(caught.value)


def test_a_split_that_is_not_there_names_those_that_are(shards):
    with pytest.raises(ConfigError, match=r"split test; it has train \(14\), val \(8\)"):
        datasets.open_dataset(str(shards), "test")


@pytest.mark.parametrize(("layout", "cure"), [(1, "make the shards again"), (3, "update tagmill")])
def test_another_layout_is_refused(copied, layout, cure):
    change_manifest(copied, layout=layout)
    with pytest.raises(ConfigError, match=f"copied has shards of layout {layout}.*{cure}"):
        datasets.open_dataset(str(copied), "train")


def test_a_manifest_that_is_none_is_refused(copied):
    (copied / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not a manifest"):
        datasets.open_dataset(str(copied), "train")


@pytest.mark.parametrize(
    "name", ["train-000001.tar", "train-000001.index.parquet", "vocabulary.tsv"], ids=["tar", "index", "tags"]
)
def test_a_missing_file_is_damage(copied, name):
    (copied / name).unlink()
    with pytest.raises(DamageError, match=name):
        datasets.open_dataset(str(copied), "train")


def test_a_shard_that_was_cut_short_is_found_before_the_first_step(copied):
    with open(copied / "train-000001.tar", "r+b") as stream:
        stream.truncate(5000)
    with pytest.raises(DamageError, match="has 5000 bytes"):
        datasets.open_dataset(str(copied), "train")


@pytest.mark.parametrize(
    ("text", "said"), [("red\tobject\n", "not the vocabulary"), ("# names\n", "has no tags.*copy it again")]
)
def test_another_vocabulary_is_damage(copied, text, said):
    (copied / "vocabulary.tsv").write_text(text)
    with pytest.raises(DamageError, match=said):
        datasets.open_dataset(str(copied), "train")


def test_one_changed_byte_is_found_on_request(copied):
    with open(copied / "train-000001.tar", "r+b") as stream:
        stream.seek(600)
        stream.write(b"!")
    dataset = datasets.open_dataset(str(copied), "train")
    datasets.verify(dataset, [0])
    with pytest.raises(DamageError, match=r"train-000001.tar does not match its sha256"):
        datasets.verify(dataset)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[0].update(member=rows[0]["member"].replace(".png", ".pyd")),
        lambda rows: rows.append(rows[0] | {"member": "more.pickle"}),
        lambda rows: rows.pop(),
        lambda rows: rows[0].update(member="other.png"),
    ],
    ids=["a pickle for an image", "a pickle besides", "a missing record", "an image of another sample"],
)
def test_an_index_of_anything_but_images_with_records_is_refused(copied, change):
    change_index(copied, change)
    with pytest.raises(DamageError, match="make the shard again"):
        datasets.open_dataset(str(copied), "train")


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[0].update(offset=-1),
        lambda rows: rows[1].update(size=-5),
        lambda rows: rows[0].update(size=2**40),
        lambda rows: rows[0].update(offset=2**63 - 1),
    ],
    ids=["before it", "less than nothing", "more than it has", "far behind it"],
)
def test_an_index_that_points_out_of_its_shard_is_damage(copied, change):
    change_index(copied, change)
    with pytest.raises(DamageError, match=r"lists what does not lie in train-000000\.tar: copy both again"):
        datasets.open_dataset(str(copied), "train")


def written(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


NO_INDEX = {
    "no Parquet": b"PAR1 no",
    "other columns": written(pa.table({"other": [1]})),
    "members that are numbers": written(pa.table({"member": [1], "offset": ["a"], "size": [1.5]})),
    "members that are lists": written(pa.table({"member": [["a"]], "offset": [0], "size": [1]})),
    "sizes that are missing": written(
        pa.table(
            {"member": ["a.png", "a.json"], "offset": [0, 1], "size": pa.array([None, None], pa.int64())}
        )
    ),
}


@pytest.mark.parametrize("data", NO_INDEX.values(), ids=NO_INDEX)
def test_an_index_that_is_none_is_damage_said_in_one_line(copied, data):
    (copied / "train-000000.index.parquet").write_bytes(data)
    with pytest.raises(DamageError, match=r"index\.parquet cannot be read") as caught:
        datasets.open_dataset(str(copied), "train")
    assert "\n" not in str(caught.value)


def test_a_dataset_is_read_wherever_fsspec_reaches(shards):
    fs = fsspec.filesystem("memory")
    fs.put(f"{shards}/", "/far/squares/", recursive=True)
    try:
        dataset = datasets.open_dataset("memory://far/squares", "train")
        datasets.verify(dataset)
        assert dataset.name == "squares"
    finally:
        fs.rm("/far", recursive=True)


def test_records_before_images_are_read_as_well(copied):
    def swap(rows):
        rows[0], rows[1] = rows[1], rows[0]

    before = datasets.open_dataset(str(copied), "train").places
    change_index(copied, swap)
    assert (datasets.open_dataset(str(copied), "train").places == before).all()
