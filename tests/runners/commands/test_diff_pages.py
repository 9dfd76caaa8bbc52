import json
from collections import Counter
from pathlib import Path

import pytest

from commands import call
from runs import STRICT, current_folder, drive, rows_of, squares_config
from sites import check_links, hostile_run, pages_of
from tagmill.pipeline.run_folder import RunFolder


def write(folder: Path, a: object, b: object, *options: object) -> dict:
    """Write the pages; gives the numbers that `--json` prints."""
    return json.loads(call("diff", a, b, "--pages", folder, "--json", *options, code=1)[0])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def chips(page) -> Counter:
    return Counter(
        one["class"].removeprefix("chip ")
        for name, one in page.elements
        if name == "span" and (one.get("class") or "").startswith("chip ")
    )


@pytest.mark.parametrize(("a", "b"), [("lax", "other"), ("shards", "other"), ("lax", "strict")])
def test_pages_have_the_numbers_of_json(compared, tmp_path, a, b):
    found = write(tmp_path / "pages", compared[a], compared[b], "--examples", 24)
    assert check_links(tmp_path / "pages") > 5
    pages = pages_of(tmp_path / "pages")
    overview = pages["index.html"]
    moved = {(one["a"], one["b"]): one for one in found["verdicts"] if one["a"] != one["b"]}
    assert moved
    counts = [cell for row in overview.tables["matrix"][2:-1] for cell in row[:-1] if cell.isdigit()]
    assert Counter(counts) == Counter(str(one["tags"]) for one in found["verdicts"])
    listed = {(row[0], row[1]): row for row in overview.tables["changes"][1:]}
    assert len(listed) == len(moved) == len(pages) - 1
    for (one, other), numbers in moved.items():
        row = listed[tuple(state.replace("/", " ").replace("_", " ") for state in (one, other))]
        assert (row[2], row[4]) == (str(numbers["tags"]), str(numbers["close"]))
        (page,) = (page for page in pages.values() if f"<title>{one} → {other}" in page.path.read_text())
        assert page.keys == [example["key"] for example in numbers["examples"]]
    assert overview.tables["moves"]
    tags = {row[0]: row[1:5] for row in overview.tables["moves"][1:]}
    for tag, moves in {**found["tags"], "all tags": found["all_tags"]}.items():
        if moves["lost"] or moves["won"]:
            assert tags[tag] == [str(moves[name]) for name in ("a", "b", "lost", "won")]
    for keys in found["images"]["keys"].values():
        assert all(key in overview.text for key in keys)
    assert all(name in overview.text for name in found["made_otherwise"])


def test_examples_are_chosen_by_chance_and_printed_are_those_of_the_pages(compared, tmp_path):
    (cell,) = write(tmp_path / "pages", compared["lax"], compared["strict"], "--examples", 3)["verdicts"]
    digests = {row["key"]: row["sha256"] for row in rows_of(compared["strict"], "ingest")}
    (name,) = (name for name in pages_of(tmp_path / "pages") if name != "index.html")
    shown = pages_of(tmp_path / "pages")[name].keys
    assert shown == sorted(shown, key=lambda key: (digests[key], key))
    assert [one["key"] for one in cell["examples"]] == shown[:3]


def test_a_card_has_both_reasons_and_says_who_is_right(compared, tmp_path):
    keys = sorted(row["key"] for row in rows_of(compared["strict"], "ingest"))
    truth = tmp_path / "truth.jsonl"
    truth.write_text("\n".join(json.dumps({"key": key, "tags": ["red"]}) for key in keys))
    found = write(tmp_path / "pages", compared["lax"], compared["strict"], "--truth", truth)
    overview, page = pages_of(tmp_path / "pages").values()
    overview, page = (overview, page) if overview.path.name == "index.html" else (page, overview)
    assert page.text.count("box 0.90 >= 0.45") == page.text.count("box 0.90 < 0.90005") == len(page.keys)
    marks = chips(page)
    assert marks["close"] == found["verdicts"][0]["close"] == len(page.keys)
    assert marks["right"] == marks["wrong"] == found["truth"]["a"] + found["truth"]["b"]
    assert f"A is right about {found['truth']['a']}, B about {found['truth']['b']} (McNemar" in overview.text
    crops = [one for name, one in page.elements if name == "image"]
    assert len(crops) == len(page.keys)


def test_pictures_come_from_the_side_that_has_them(compared, tmp_path):
    of_run, of_shards, bare = (tmp_path / name for name in ("run", "shards", "bare"))
    write(of_run, compared["lax"], compared["strict"])
    write(of_shards, compared["shards"], compared["strict"])
    write(bare, compared["shards"], compared["other"])  # B was asked for no boxes: they are A's
    cells = [
        [path.read_bytes() for path in sorted((folder / "pictures").iterdir())]
        for folder in (of_run, of_shards)
    ]
    assert cells[0] == cells[1] != []
    (page, *_) = (page for name, page in pages_of(bare).items() if name != "index.html")
    assert [one for name, one in page.elements if name == "image"]


def test_the_same_bytes_each_time_and_no_picture_if_private(compared, tmp_path):
    for name in ("one", "two", "two"):  # the pages may be replaced
        write(tmp_path / name, compared["lax"], compared["strict"])
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    made = write(tmp_path / "private", compared["lax"], compared["strict"], "--private")["pages"]
    assert (made["pictures"], made["lacking"]) == (0, 0)
    assert not list((tmp_path / "private").rglob("*.webp"))
    assert check_links(tmp_path / "private")
    assert not any(str(tmp_path.parent).encode() in data for data in contents(tmp_path / "one").values())


@pytest.mark.parametrize("mark", ["mine.txt", "tagmill-site.txt"])
def test_a_folder_of_somebody_elses_is_left_alone(compared, tmp_path, mark):
    (tmp_path / mark).write_text("mine")
    said = call("diff", compared["lax"], compared["strict"], "--pages", tmp_path, code=2)[1]
    assert "exists and is not a comparison: name another folder with --pages" in said
    assert [path.name for path in tmp_path.iterdir()] == [mark]


def test_hostile_keys_are_words_and_an_image_comes_from_where_it_still_is(tmp_path):
    run, key = hostile_run(tmp_path)
    before, shards = RunFolder(str(run)).current("clean"), current_folder(run, "shards")
    drive(squares_config(tmp_path, {}, part_size=2), *STRICT)
    (tmp_path / "data" / "b.tar").unlink()
    made = write(tmp_path / "bare", f"{run}@{before}", run)["pages"]
    assert (made["pictures"], made["lacking"]) == (0, 1)
    assert "no file matches" in made["lack"]
    assert write(tmp_path / "pages", shards, run)["pages"]["pictures"] == 1
    shown = [page for page in pages_of(tmp_path / "pages").values() if page.keys]
    assert {key for page in shown for key in page.keys} == {key}
    for page in pages_of(tmp_path / "pages").values():
        for name, attributes in page.elements:
            assert not {one for one in attributes if one.startswith("on") or one == "style"}
            assert name != "script" or attributes.keys() == {"src", "defer"}
            assert name != "img" or attributes["src"].startswith("../pictures/")
