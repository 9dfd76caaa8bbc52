"""Runs over sources that were made to stop, to fake or to shrink them: all is counted, and the rest lives."""

import json
import os
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from runs import current_folder, drive, squares_config
from sources import encode, members, square_image, write_tar
from tagmill.tag_system.core.errors import ConfigError, TooManyDeadError
from tagmill.transforms import parquet

PNG = encode(square_image(["red"]))
OTHERS = [encode(square_image(["blue", "red"], seed)) for seed in range(9)]
OFF = {"tag": None, "localize": None, "embed": None, "cluster": None}


def config_of(folder, *, dead=1.0, ingest=None, **source):
    source = {"name": "x", "labels": None} | source
    return squares_config(folder, {}, inputs=[source], max_dead_fraction=dead, ingest=ingest or {}, **OFF)


def outcome(folder: Path) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """The keys that lived, and of each dead letter the reason and the detail, by key."""
    ingest = current_folder(folder / "run", "ingest")
    alive = [row["key"] for path in sorted(ingest.glob("*.parquet")) for row in rows(path)]
    dead = [row for path in sorted((ingest / "dead").glob("*")) for row in rows(path)]
    return alive, {d["key"]: d["reason"] for d in dead}, {d["key"]: d["detail"] for d in dead}


def rows(path):
    return parquet.read_table(str(path)).to_pylist()


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    (root / "a.png").write_bytes(PNG)
    (root / "a.txt").write_text("a red square\n")
    (root / "sub" / "b.png").write_bytes(OTHERS[0])
    return root


def test_special_files_in_a_folder_are_counted_and_never_read(tmp_path, photos):
    os.mkfifo(photos / "pipe.png")
    (photos / "zero.png").symlink_to("/dev/zero")
    (photos / "nothing.png").symlink_to(tmp_path / "nowhere")
    (photos / "c.png").write_bytes(OTHERS[1])
    os.mkfifo(photos / "c.txt")
    (photos / "d.png").write_bytes(OTHERS[2])
    (photos / "d.txt").symlink_to("/dev/urandom")
    with open(photos / "holes.png", "wb") as sparse:
        sparse.truncate(1 << 42)
    (photos / "version.png").symlink_to("/proc/version")
    drive(config_of(tmp_path, format="folder", path=str(photos), links="follow"))
    alive, dead, details = outcome(tmp_path)
    assert alive == ["x/a", "x/sub/b"]
    gone = dict.fromkeys(("x/pipe", "x/zero", "x/nothing", "x/c", "x/d", "x/holes"), "image_missing")
    assert dead == gone | {"x/version": "image_unreadable"}
    assert "not a regular file" in details["x/pipe"]


@pytest.mark.parametrize("links", ["within", "follow"])
def test_links_that_lead_out_of_a_folder_are_refused_unless_they_are_allowed(tmp_path, photos, links):
    secret = tmp_path / "secret"
    secret.write_text("root:x:0\n")
    outside = tmp_path / "outside.png"
    outside.write_bytes(OTHERS[3])
    (photos / "sub" / "b.txt").symlink_to(secret)
    (photos / "c.png").symlink_to(outside)
    (photos / "sub" / "d.png").symlink_to("../.hidden")
    (photos / ".hidden").write_bytes(OTHERS[4])
    (photos / "e.png").symlink_to("c.png")
    drive(config_of(tmp_path, format="folder", path=str(photos), links=links), "duplicates=null")
    alive, dead, details = outcome(tmp_path)
    if links == "follow":
        assert (alive, dead) == (["x/a", "x/c", "x/e", "x/sub/b", "x/sub/d"], {})
        return
    assert alive == ["x/a", "x/sub/d"]
    assert dead == dict.fromkeys(("x/c", "x/e", "x/sub/b"), "link_refused")
    assert details["x/c"].startswith("./c.png is a link that leads to ../outside.png, out of ")
    assert all("links: follow" in detail for detail in details.values())


@pytest.mark.parametrize("links", ["within", "follow"])
@pytest.mark.parametrize("layout", ["hugging face", "dvc"])
def test_a_cache_of_links_says_what_to_set(tmp_path, layout, links):
    root, blobs = {
        "hugging face": (tmp_path / "hub" / "snapshots" / "REV", tmp_path / "hub" / "blobs"),
        "dvc": (tmp_path / "repo" / "data", tmp_path / "repo" / ".dvc" / "cache"),
    }[layout]
    for folder in (root, blobs):
        folder.mkdir(parents=True)
    for number, data in enumerate(OTHERS[:4]):
        (blobs / f"{number}f").write_bytes(data)
        (root / f"{number}.png").symlink_to(os.path.relpath(blobs / f"{number}f", root))
    lines = "".join(json.dumps({"image": f"{n}.png", "caption": "a red square"}) + "\n" for n in range(4))
    (blobs / "lines").write_text(lines)
    (root / "all.jsonl").symlink_to(blobs / "lines")
    for format_, path in (("folder", root), ("jsonl", root / "all.jsonl")):
        (tmp_path / format_).mkdir()
        config = config_of(tmp_path / format_, dead=0.1, format=format_, path=str(path), links=links)
        if links == "follow":
            drive(config)
            assert len(outcome(tmp_path / format_)[0]) == 4
        else:
            with pytest.raises(TooManyDeadError, match=r"4 are link_refused, such as .*`links: follow`"):
                drive(config)
    if layout == "dvc" and links == "within":  # from the folder that holds both, no link leads out
        (tmp_path / "whole").mkdir()
        drive(config_of(tmp_path / "whole", format="folder", path=str(tmp_path / "repo")))
        assert len(outcome(tmp_path / "whole")[0]) == 4


def test_images_that_lines_name_are_regular_files_within_their_folder(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "a.png").write_bytes(PNG)
    os.mkfifo(root / "pipe.png")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "out.png").symlink_to(tmp_path / "out.png")
    (tmp_path / "out.png").write_bytes(OTHERS[0])
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "b.png").write_bytes(OTHERS[1])
    (root / "folder").symlink_to(tmp_path / "away")
    names = ["a.png", "pipe.png", "zero.png", "out.png", "folder/b.png"]
    (root / "x.jsonl").write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    drive(config_of(tmp_path, format="jsonl", path=str(root / "x.jsonl")))
    alive, dead, _ = outcome(tmp_path)
    assert alive == ["x/a"]
    assert dead == {
        "x/pipe": "image_missing",
        "x/zero": "image_missing",
        "x/out": "link_refused",
        "x/folder/b": "link_refused",
    }


@pytest.mark.parametrize("path", ["/dev/urandom", "/dev/zero", "pipe"])
@pytest.mark.parametrize("format_", ["jsonl", "webdataset"])
def test_a_source_is_a_regular_file(tmp_path, format_, path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is a pipe or a device"):
        drive(config_of(tmp_path, format=format_, path=str(tmp_path / path)))


def test_a_pipe_that_a_pattern_matches_is_a_dead_letter(tmp_path):
    (tmp_path / "data").mkdir()
    write_tar(tmp_path / "data" / "b.tar", list(members("k", 0).items()))
    os.mkfifo(tmp_path / "data" / "a.tar")
    (tmp_path / "data" / "c.tar").symlink_to("/dev/zero")
    config = config_of(tmp_path, format="webdataset", path=str(tmp_path / "data" / "*.tar"))
    drive(config)
    alive, dead, _ = outcome(tmp_path)
    assert alive == ["x/k"]
    assert dead == {"x/a.tar": "source_unreadable", "x/c.tar": "source_unreadable"}
    assert drive(config).jobs == []


def test_members_of_a_tar_that_are_no_files_are_counted(tmp_path):
    kinds = {
        "device": tarfile.CHRTYPE,
        "disk": tarfile.BLKTYPE,
        "pipe": tarfile.FIFOTYPE,
        "link": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "odd": b"Z",
    }
    path = tmp_path / "data" / "a.tar"
    write_tar(path, [("a.png", PNG), ("folder.png/b.png", OTHERS[0])])
    with tarfile.open(path, "a") as archive:
        for name, kind in kinds.items():
            for ending in ("jpg", "json", "txt", "dat"):
                info = tarfile.TarInfo(f"{name}-{ending}.{ending}")
                info.type, info.linkname = kind, "a.png"
                archive.addfile(info)
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    drive(config_of(tmp_path, format="webdataset", path=str(path)))
    alive, dead, _ = outcome(tmp_path)
    assert alive == ["x/a", "x/folder.png/b"]
    assert {key for key in dead if not key.endswith("-dat")} == {
        f"x/{name}-{ending}" for name in kinds for ending in ("jpg", "json", "txt")
    }
    assert set(dead.values()) == {"image_missing"}


def test_one_example_of_many_dead_captions_ends_no_run(tmp_path):
    contents = [
        item
        for n in range(30)
        for item in members(f"k{n}", n, [f"a red square {n}", "a blue square"]).items()
    ]
    contents += members("bad", 99, [""] * 5_000 + ["a red square"]).items()
    write_tar(tmp_path / "data" / "a.tar", contents)
    config = config_of(tmp_path, dead=0.05, format="webdataset", path=str(tmp_path / "data" / "a.tar"))
    drive(config, "duplicates=null")
    ingest = current_folder(tmp_path / "run", "ingest")
    reasons = Counter(row["reason"] for path in (ingest / "dead").glob("*") for row in rows(path))
    assert reasons == {"caption_empty": 1_000, "captions_too_many": 1}


@pytest.mark.parametrize(("bad", "ends"), [(2, False), (8, True)])
def test_captions_that_die_in_many_examples_end_the_run(tmp_path, bad, ends):
    """Half of the captions of `bad` in 30 examples: 3% of an example's on average, or 13%."""
    contents = [
        item
        for n in range(30)
        for item in members(f"k{n}", n, ["a red square", " " if n < bad else "a blue square"]).items()
    ]
    write_tar(tmp_path / "data" / "a.tar", contents)
    config = config_of(tmp_path, dead=0.1, format="webdataset", path=str(tmp_path / "data" / "a.tar"))
    if ends:
        with pytest.raises(
            TooManyDeadError, match=r"8 of all 60 captions \(13.3% of an example's, on average\)"
        ):
            drive(config, "duplicates=null")
    else:
        drive(config, "duplicates=null")


@pytest.mark.parametrize(
    ("limit", "fields"),
    [
        ("max_labels", {"truth": ["red"] * 4}),
        ("max_meta_bytes", {"note": "x" * 100}),
        ("max_record_bytes", {"note": "x" * 300}),
    ],
)
@pytest.mark.parametrize("format_", ["jsonl", "webdataset"])
def test_an_example_that_says_too_much_dies_and_names_the_limit(tmp_path, format_, limit, fields):
    most = {"max_labels": 3, "max_meta_bytes": 90, "max_record_bytes": 250}[limit]
    data = tmp_path / "data"
    write_tar(data / "a.tar", [("a.png", PNG), ("b.png", PNG), ("b.json", json.dumps(fields).encode())])
    (data / "a.png").write_bytes(PNG)
    (data / "b.png").write_bytes(PNG)
    lines = [{"image": "a.png"}, {"image": "b.png", **fields}]
    labels = "truth" if "truth" in fields else None
    (data / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = data / ("a.tar" if format_ == "webdataset" else "a.jsonl")
    drive(config_of(tmp_path, format=format_, path=str(path), labels=labels, ingest={limit: most}))
    alive, dead, details = outcome(tmp_path)
    assert alive == ["x/a"]
    assert list(dead.values()) == ["record_too_large"]
    assert f"ingest.{limit}" in next(iter(details.values()))
