from pathlib import Path

import pytest

from runs import STRICT, current_folder, drive, squares_config
from sources import members, write_tar
from tagmill.pipeline.run_folder import RunFolder
from tagmill.runners import cli

OFF = {"tag": None, "embed": None, "cluster": None}


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | str]:
    """A run with two generations, of a lax and a strict policy, and one of partly other images.

    Of the second, 000000 is another image, 000001 and 000002 went, 000008 and 000009 came, and 000003 has
    no labels, so no candidates.
    """
    first, second = (tmp_path_factory.mktemp(name) for name in ("first", "second"))
    tars = {"b.tar": (4, 0), "c.tar": (4, 4)}
    drive(squares_config(first, tars, **OFF))
    lax = RunFolder(str(first / "run")).current("clean")
    shards = current_folder(first / "run", "shards")
    drive(squares_config(first, tars, **OFF), *STRICT)
    config = squares_config(second, {}, part_size=3, localize=None, duplicates=None, **OFF)
    contents = [members("000000", 50), members("000003", 3, truth=[])]
    contents += [members(f"{i:06d}", i) for i in range(4, 10)]
    write_tar(second / "data" / "d.tar", [item for one in contents for item in one.items()])
    drive(config)
    return {
        "lax": f"{first / 'run'}@{lax}",
        "strict": first / "run",
        "shards": shards,
        "other": second / "run",
    }


@pytest.fixture
def tagmill(monkeypatch, capsys):
    """The whole command line in this process: its exit code, what it prints, and what it prints as errors."""

    def run(*arguments):
        left = []
        monkeypatch.setattr("sys.argv", ["tagmill", *map(str, arguments)])
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(cli, "_leave", left.append)
        monkeypatch.setattr(cli, "configure_logging", lambda: None)  # its handler would outlive the test
        cli.main()
        said = capsys.readouterr()
        return left[0], said.out, said.err

    return run
