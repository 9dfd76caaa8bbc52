from pathlib import Path

import pytest

from commands import call
from runs import squares_config, stop_before_recording
from sites import HOSTILE, check_links, hostile_run, pages_of
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.tables import ask_whole, open_tables


@pytest.fixture(scope="module")
def site(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    call("report", finished / "run", "--to", folder, "--samples", 2)
    return folder


def test_every_link_leads_somewhere_and_every_file_is_led_to(site):
    assert check_links(site) > 40


def test_pages_show_what_their_queries_give(finished, site):
    pages = pages_of(site)
    with open_tables(RunFolder(str(finished / "run"))) as connection:
        answers = {
            path: [ask_whole(connection, query).to_pylist() for query in page.queries]
            for path, page in pages.items()
        }
    kept, dropped = answers["weakest.html"]
    assert pages["weakest.html"].keys == [row["key"] for row in [*kept, *dropped]]
    assert [row["support"] for row in kept] == sorted(row["support"] for row in kept)
    tags = {path: page for path, page in pages.items() if path.startswith("tags/")}
    assert len(tags) == len(answers["tags.html"][0])
    for path, page in tags.items():
        shown = answers[path][0]
        assert sorted(page.keys) == sorted(row["key"] for row in shown)
        words = [cell for row in answers[path][2] for cell in (row["words"], f"{row['captions']:,}")]
        assert all(word in page.text for word in words)
    captions, _, untagged = answers["untagged.html"]
    text = pages["untagged.html"].text
    assert all(row["key"] in text for row in [*captions, *untagged])
    counts, letters = answers["dead.html"]
    assert sum(row["count"] for row in counts) == 2 == len(letters)
    assert all(row["detail"] in pages["dead.html"].text for row in letters)
    assert all(query in pages["sql.html"].queries for query in pages["weakest.html"].queries)


def test_an_image_shows_its_words_boxes_and_reasons(finished, tmp_path):
    call("inspect", finished / "run", "squares/wrong", "--html", tmp_path / "wrong.html")
    page = pages_of(tmp_path)["wrong.html"]
    marks = {one["data-tag"]: one["class"] for name, one in page.elements if name == "mark"}
    assert marks == {"yellow": "uncertain"}
    boxes = {
        one["data-tag"]: one["class"] for name, one in page.elements if name == "rect" and "data-tag" in one
    }
    assert boxes["blue"] == "box kept"
    assert "looked for in vain; one caption alone" in page.text
    assert [one["src"][:23] for name, one in page.elements if name == "img"] == ["data:image/webp;base64,"]


def test_the_same_bytes_each_time_and_no_picture_if_private(finished, site, tmp_path):
    again = tmp_path / "again"
    call("report", finished / "run", "--to", again, "--samples", 2)
    call("report", finished / "run", "--to", again, "--samples", 2)  # a site may be replaced
    contents = {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    assert contents == {
        path.relative_to(site): path.read_bytes() for path in site.rglob("*") if path.is_file()
    }
    private = tmp_path / "private"
    call("report", finished / "run", "--to", private, "--private")
    assert not list(private.rglob("*.webp"))
    assert not [
        one for page in pages_of(private).values() for one in page.elements if one[0] in ("img", "image")
    ]
    check_links(private)


def test_a_folder_of_somebody_elses_is_left_alone(finished, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    said = call("report", finished / "run", "--to", tmp_path, code=2)[1]
    assert "exists and is not a site" in said
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("stage", ["ingest", "tag", "clean"])
def test_a_run_that_was_stopped_has_a_site(tmp_path, stage):
    config = squares_config(tmp_path, {"b.tar": (6, 0)})
    stop_before_recording(config, stage)
    call("report", tmp_path / "run")
    site = tmp_path / "run" / "report" / "site"
    overview = pages_of(site)["index.html"].text
    assert f"{stage} is not whole: 2 parts of it are made" in " ".join(overview.split())
    assert "no tag is decided" in overview or stage == "ingest"
    check_links(site)
    with open_tables(RunFolder(str(tmp_path / "run"))) as connection:
        for query in {query for page in pages_of(site).values() for query in page.queries}:
            ask_whole(connection, query)


def test_hostile_words_are_words(tmp_path):
    run, key = hostile_run(tmp_path)
    call("report", run, "--to", tmp_path / "site")
    call("inspect", run, key, "--html", tmp_path / "page.html")
    pages = {**pages_of(tmp_path / "site"), **pages_of(tmp_path)}
    assert HOSTILE in pages["page.html"].text
    for one in pages.values():
        for name, attributes in one.elements:
            assert not any(attribute.startswith("on") for attribute in attributes)
            if name == "script":
                assert attributes in ({}, *({"src": f"{up}site.js", "defer": None} for up in ("", "../")))
            if name == "img":
                assert (attributes["src"] or "").startswith(("pictures/", "../pictures/", "data:image/webp"))
        assert "\u202e" not in one.text
    assert [name for name, _ in pages["page.html"].elements].count("script") == 1
