from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from sources import members, write_config, write_tar
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run import Driver
from tagmill.pipeline.study.report import write_report
from tagmill.runners.commands.console import ConsoleProgress
from tagmill.runners.local import LocalEngine


@pytest.fixture(scope="session")
def squares_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over twelve examples: one broken image, one copy, an empty and a tagless caption."""
    folder = tmp_path_factory.mktemp("squares")
    contents = [item for i in range(9) for item in members(f"{i:06d}", i).items()]
    contents += [("broken.png", b"\x89PNG\r\n\x1a\n and no more"), ("broken.json", b"{}")]
    copy = list(members("copy", 3).items())
    contents += copy
    contents += list(members("dull", 50, ["", "nothing to be seen here"]).items())
    write_tar(folder / "data" / "a.tar", contents)
    config = write_config(folder, max_dead_fraction=0.5)
    driver = Driver(load_config(str(config)))
    with ConsoleProgress(Console(quiet=True), "plain") as progress:
        driver.run(LocalEngine(0, PipelineOptions([])), progress)
    write_report(driver.run_folder, driver.vocabulary)
    return folder / "run"
