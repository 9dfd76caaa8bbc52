"""The notebook for newcomers: its cells in order, as they stand, in a process and a folder of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "examples" / "first_run.ipynb"

pytestmark = pytest.mark.skipif(not NOTEBOOK.exists(), reason="the examples are not beside the tests")

KERNEL = """
import ast, json, sys
names = {}
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] != "code":
        continue
    body = ast.parse("".join(cell["source"])).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), cell["id"], "exec"), names)
    value = last and eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)
    print("OUT " + cell["id"])
    if value is not None:
        print(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))
"""
"""What Jupyter does with a notebook, as far as it matters here: the last expression of a cell is shown."""


def test_it_runs_from_top_to_bottom_and_shows_what_its_words_say(tmp_path):
    said = subprocess.run(
        [sys.executable, "-P", "-c", KERNEL, NOTEBOOK],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    shown = [text.partition("\n")[2] for text in said.stdout.split("OUT ")[1:]]
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
