"""The notebook for newcomers: its cells in order, as they stand, in a process and a folder of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "examples" / "first_run.ipynb"

pytestmark = pytest.mark.skipif(not NOTEBOOK.exists(), reason="the examples are not beside the tests")

KERNEL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.history_manager.enabled = False
shown = []
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        done = shell.run_cell("".join(cell["source"]))
        done.raise_error()
        data, _ = shell.display_formatter.format(done.result)
        shown.append(data.get("text/html", data["text/plain"]))
json.dump(shown, open("shown.json", "w"))
"""
"""What Jupyter's kernel does: a shell runs the cells and shows the last expression of each."""


def test_it_runs_from_top_to_bottom_and_shows_what_its_words_say(tmp_path):
    said = subprocess.run(
        [sys.executable, "-P", "-c", KERNEL, NOTEBOOK],
        cwd=tmp_path,
        env={**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    shown = json.loads((tmp_path / "shown.json").read_text())
    captions, plan, run, again, example, decision, other, dataset, sample, predicted = shown
    assert "'200001': 'an airplane at the beach'" in captions
    assert "ingest: make 1 of 1 sources" in plan
    assert "<td>shards</td>" in run
    assert all(": up to date, " in line for line in again.splitlines())
    for text in (example, sample):
        assert "<li>we see a gray airplane, a red sandwich and a tomato in a desert</li>" in text
        assert "<td>helicopter</td><td>object</td><td>kept</td>" in text
    assert ">dropped</span> rule other_tag, basis region" in decision
    assert "a red <mark>sandwich</mark> and" in decision
    made = [line for line in other.splitlines() if ": up to date, " not in line]
    assert made[0].startswith("clean: make ")
    assert "policy.rule adaptive -> paper" in other
    assert "60 samples" in dataset
    assert "<td>tomato</td><td>1.00</td>" in predicted
    assert all("data:image/jpeg;base64," in text for text in (example, decision, sample, predicted))


def test_it_is_stored_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    for cell in notebook["cells"]:
        assert cell.get("execution_count") is None
        assert not cell.get("outputs")
