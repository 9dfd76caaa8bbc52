"""`tagmill models eval` and `calibrate`: how good a model's tags are, and which thresholds suit it."""

from pathlib import Path
from typing import Annotated

import typer

from tagmill.runners.commands import scoring
from tagmill.runners.commands.places import READ
from tagmill.runners.commands.scoring import ScoringRequest
from tagmill.runners.commands.taggers import sharing
from tagmill.runners.commands.terminal import Terminal
from tagmill.tag_system.core.errors import ConfigError


@sharing(ScoringRequest)
def evaluate(
    request: ScoringRequest,
    out: Annotated[str, typer.Option(help="folder or url for the tables and the report")],
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="one for all tags; default: the model's own, or 0.5")
    ] = None,
    thresholds: Annotated[Path | None, typer.Option(help="one for each tag, a line each", **READ)] = None,
) -> None:
    """Measure a model on labelled images: mAP, CP, CR, CF1, OP, OR, OF1, a table of its tags, PR curves."""
    from tagmill.models.training import evaluation, metrics
    from tagmill.runners.commands import evaluation_report as report

    if threshold is not None and thresholds is not None:
        raise ConfigError("--threshold is one for all tags, --thresholds one for each: give one of them")
    tagger = request.tagger()
    asked = evaluation.ask(tagger, request.taglist, request.embeddings)
    limits = scoring.thresholds(tagger, asked, threshold, thresholds)
    console = Terminal()
    with scoring.scored(request, tagger, asked, console) as (scored, kinds):
        found = metrics.measure(
            scored.store, asked.names, limits, [kinds.get(name, "") for name in asked.names]
        )
        images_read = len(scored.store.keys)
    report.write(out, found, images_read, request.model)
    report.show(console, found, images_read)
    scoring.say(console, f"{out}: report.html, tags.parquet, summary.json")


@sharing(ScoringRequest)
def calibrate(
    request: ScoringRequest,
    out: Annotated[str, typer.Option(help="folder or url for the thresholds and the table of their check")],
    precision: Annotated[
        float | None, typer.Option(min=0, max=1, help="least precision of each tag; default: the best F1")
    ] = None,
    hold_out: Annotated[float, typer.Option(min=0.01, max=0.99, help="share of images to check on")] = 0.3,
    min_positives: Annotated[int, typer.Option(min=1, help="images that a tag needs to be fitted")] = 10,
    apply: Annotated[
        bool, typer.Option("--apply", help="put the thresholds into the model's folder")
    ] = False,
) -> None:
    """Choose each tag's threshold on labelled images, and check it on images that were held out."""
    from tagmill.models.ram import config as configs
    from tagmill.models.ram import model_card
    from tagmill.models.ram.tagger import RamTagger
    from tagmill.models.training import calibration, evaluation
    from tagmill.runners.commands import calibration_report as report

    if apply and request.taglist is not None:
        raise ConfigError("--apply needs a threshold for every class of the model: leave --taglist out")
    if apply and "://" in request.model:
        raise ConfigError(
            f"--apply writes into a folder of this machine: leave it out, take the thresholds from "
            f"{out}/thresholds.txt, and copy the model's folder to put them into it"
        )
    tagger = request.tagger()
    if apply and not isinstance(tagger, RamTagger):
        raise ConfigError(
            f"--apply writes into the folder of a RAM, RAM++ or Tag2Text, and {type(tagger).__name__} has "
            f"none: leave it out, and take the thresholds from {out}/thresholds.txt"
        )
    asked = evaluation.ask(tagger, request.taglist, request.embeddings)
    console = Terminal()
    has_own = scoring.own_thresholds(tagger) is not None
    own = scoring.thresholds(tagger, asked, None, None) if has_own else None
    aim = calibration.Aim(precision, hold_out, min_positives)
    with scoring.scored(request, tagger, asked, console) as (scored, _):
        found = calibration.calibrate(scored.store, asked.names, aim, own)
    report.write(out, found)
    report.show(console, found, aim, "the model's own" if own else f"the shared one, {found.shared:g}")
    scoring.say(console, f"{out}: thresholds.txt, calibration.parquet")
    if apply and isinstance(tagger, RamTagger):
        chosen = tuple(tag.threshold for tag in found.tags)
        config = tagger.config.model_copy(update={"thresholds": chosen})
        configs.write(config, tagger.folder)
        model_card.refresh(tagger.folder, config)
        scoring.say(console, f"{tagger.folder}: has these thresholds now")
