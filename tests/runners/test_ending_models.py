"""A plug-in that ends the driver's process: no exit code says then that a dataset was made."""

import os
import signal
import sys
from pathlib import Path

import pytest

from runs import squares_config
from tagmill.runners import cli


def run(config: Path) -> tuple[int, str]:
    """Run the command line in a fork of this process: its exit code, or minus a signal, and what it says."""
    said = config.with_name("stderr")
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        with said.open("w") as sys.stderr, Path(os.devnull).open("w") as sys.stdout:
            sys.argv = ["tagmill", "run", str(config), "--workers", "0"]
            cli.main()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.read_text()


def ending(where: str, how: str) -> dict[str, object]:
    return {"model": "ending_models:EndingTagger", "options": {"where": where, "how": how}}


@pytest.mark.parametrize("how", ["sys.exit()", "sys.exit(0)", "os._exit(0)"])
@pytest.mark.parametrize(
    ("where", "who"),
    [
        ("constructor", "model 'ending_models:EndingTagger'"),
        ("fingerprint", "tag.model ending_models:EndingTagger"),
        ("predict", "tag.model ending_models:EndingTagger"),
    ],
)
def test_a_model_that_ends_the_driver_is_named_and_no_dataset_is_claimed(tmp_path, where, who, how):
    config = squares_config(tmp_path, {"a.tar": (2, 0)}, tag=ending(where, how))
    code, said = run(config)
    assert code == 2
    assert said.splitlines()[-1].startswith(f"tagmill: {who}")
    assert f" ends the process by {how}, and with it the run: take that out of it" in said.splitlines()[-1]
    assert not list((tmp_path / "run").glob("shards/*"))


@pytest.mark.parametrize("how", ["sys.exit(0)", "os._exit(0)"])
def test_a_module_that_ends_the_driver_is_named(tmp_path, monkeypatch, how):
    (tmp_path / "leaving.py").write_text(f"import os, sys\n{how}\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, said = run(squares_config(tmp_path, {"a.tar": (2, 0)}, tag={"model": "leaving:Tagger"}))
    assert code == 2
    assert said.startswith(f"tagmill: model 'leaving:Tagger' ends the process by {how}")


def test_a_signal_and_an_interruption_keep_their_codes_and_the_next_run_is_whole(tmp_path):
    config = squares_config(tmp_path, {"a.tar": (2, 0)}, tag=ending("constructor", "interrupt"))
    assert run(config) == (130, "tagmill: interrupted; run the same command to go on\n")
    config = squares_config(tmp_path, {"a.tar": (2, 0)}, tag=ending("fingerprint", "kill"))
    assert run(config) == (-signal.SIGKILL, "")
    assert run(squares_config(tmp_path, {"a.tar": (2, 0)}))[0] == 0
