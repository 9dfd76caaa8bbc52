import pytest

from tagmill.runners import cli


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
