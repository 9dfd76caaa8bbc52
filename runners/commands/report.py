"""`tagmill report`: the audit site of a run."""

from typing import Annotated

import typer

from tagmill.runners.commands.terminal import Terminal
from tagmill.tag_system.core.errors import ConfigError


def report(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="the run's folder, finished or not")],
    to: Annotated[
        str | None, typer.Option(help="the folder to write; default: report/site in the run's folder")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="images to show of each tag, verdict and rule, chosen by chance")
    ] = 6,
    private: Annotated[bool, typer.Option("--private", help="write no picture of any image")] = False,
    truth: Annotated[
        str | None, typer.Option(help="labelled images, as for score: the site says how right the tags are")
    ] = None,
) -> None:
    """Write pages that show what a run did and why; they open in a browser, without a server."""
    from tagmill.pipeline.study.evaluation import read_truth
    from tagmill.pipeline.study.site.base import SiteOptions
    from tagmill.pipeline.study.site.site import site_folder, write_site
    from tagmill.runners.commands.inspection import open_run
    from tagmill.runners.commands.pages_made import say_made

    run = open_run(run_folder)
    folder = to or site_folder(run)
    if folder is None:
        raise ConfigError(f"{run_folder} is not on this machine: name a local folder with --to")
    known = read_truth(truth) if truth else None
    made = write_site(run, folder, SiteOptions(samples, private), known)
    say_made(Terminal(), folder, made)
