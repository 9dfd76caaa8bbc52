"""The audit site in a real browser; `make services` installs one."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from commands import call
from runs import drive, squares_config
from sites import hostile_run
from sources import members, write_tar
from tagmill.pipeline.study.site.rendering import asset
from tagmill.pipeline.study.site.site import PAGES

HERE = Path(__file__).parent

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def seen(finished, tmp_path_factory) -> dict:
    """What a browser found in the site of a finished run, on the page of a hostile example, and in a diff."""
    folder = tmp_path_factory.mktemp("browser")
    call("report", finished / "run", "--to", folder / "site")
    run, key = hostile_run(folder / "hostile")
    call("inspect", run, key, "--html", folder / "hostile.html")
    squares = folder / "squares"
    squares.mkdir()
    some = [members(f"{i:06d}", i, truth=None if i % 3 else []) for i in range(8)]
    write_tar(squares / "data" / "a.tar", [item for one in some for item in one.items()])
    drive(squares_config(squares, {}, tag=None, embed=None, cluster=None))
    call("diff", squares / "run", finished / "run", "--pages", folder / "diff", code=1)
    screenshots = Path(os.environ.get("TAGMILL_SCREENSHOTS", folder / "screenshots"))
    screenshots.mkdir(parents=True, exist_ok=True)
    program = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
    shown = [folder / name for name in ("site", "hostile.html", "diff")]
    command = ["node", HERE / "site.cjs", program, *shown, screenshots]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict = json.loads(done.stdout)
    return found


def test_it_needs_no_network_and_has_no_error(seen):
    assert seen["requests"] == seen["errors"] == []
    assert seen["pages"] == 4 * (len(PAGES) + 4)


def test_everybody_can_read_it(seen):
    """axe-core finds nothing serious, and no page is wider than a phone or a laptop."""
    assert seen["unreachable"] == seen["wide"] == []


def test_tags_are_searched_sorted_and_filtered(seen):
    used = seen["used"]
    assert used["searched"] == [tag for tag in used["all"] if used["all"][0][:3] in tag]
    assert {kind: set(found) for kind, found in used["filtered"].items() if kind and found} == {
        kind: {kind} for kind, found in used["filtered"].items() if kind and found
    }
    assert len(used["filtered"][""]) == len(used["all"])
    assert (
        used["falling"] == sorted(used["falling"], reverse=True) != used["rising"] == sorted(used["rising"])
    )
    assert used["named"] == sorted(used["all"])
    assert set(used["linked"]) < set(used["all"])


def test_a_tag_and_its_boxes_light_up_together(seen):
    used = seen["used"]
    assert {"tr", "rect"} <= {name for name, _ in used["hovered"]}
    assert {tag for _, tag in used["hovered"]} == {used["tag"]}
    assert used["left"] == []
    assert used["focused"] == used["hovered"]


def test_kinds_of_change_are_sorted_and_lead_to_examples(seen):
    used = seen["used"]
    assert used["largest"] == sorted(used["largest"], reverse=True)
    assert used["smallest"] == sorted(used["largest"]) != used["largest"]
    assert used["lead"].startswith(f"{used['count']} tag")
    assert used["drawn"]


def test_the_theme_is_kept(seen):
    assert seen["used"]["before"] != seen["used"]["after"] == seen["used"]["kept"]


def test_hostile_words_run_nothing(seen):
    assert "<script>" in seen["hostile"]
    assert seen["title"].endswith("· run")


def test_the_script_stays_small():
    assert len(asset("site.js").splitlines()) <= 500
