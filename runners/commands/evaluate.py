"""`tagmill models eval` and `calibrate`: how good a model's tags are, and which thresholds suit it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tagmill.runners.commands import scoring
from tagmill.tag_system.core.errors import ConfigError

Model = Annotated[Path, typer.Argument(help="folder of a RAM, RAM++ or Tag2Text")]
Shards = Annotated[
    list[str] | None, typer.Option(help="folder of a dataset; give it again for another dataset")
]
Split = Annotated[list[str] | None, typer.Option(help="train, val or test; again for more; default: val")]
Truth = Annotated[
    Path | None,
    typer.Option(help="labels, Parquet or JSON lines (key, tags), in place of the shards' own"),
]
Annotations = Annotated[Path | None, typer.Option("--annots", help="labels as an official list of images")]
TagList = Annotated[
    Path | None, typer.Option("--taglist", help="tags to ask, one a line; default: all classes")
]
Images = Annotated[Path | None, typer.Option(help="folder of the images of --annots, if not in shards")]
Embeddings = Annotated[
    Path | None, typer.Option(help="label embeddings of a --taglist that the model does not know")
]
BatchSize = Annotated[int, typer.Option(min=1, help="images in one call of the model")]
Workers = Annotated[int, typer.Option(min=0, help="processes that decode images")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
Dtype = Annotated[str, typer.Option(help="the format to compute in: float32, bfloat16, float16")]


def evaluate(
    model: Model,
    out: Annotated[Path, typer.Option(help="folder for the tables and the report")],
    shards: Shards = None,
    split: Split = None,
    truth: Truth = None,
    annotations: Annotations = None,
    taglist: TagList = None,
    images: Images = None,
    embeddings: Embeddings = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="one for all tags; default: the model's own, or 0.5")
    ] = None,
    thresholds: Annotated[Path | None, typer.Option(help="one for each tag, a line each")] = None,
    batch_size: BatchSize = 32,
    workers: Workers = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Measure a model on labelled images: mAP, CP, CR, CF1, OP, OR, OF1, a table of its tags, PR curves."""
    from tagmill.models.ram import config as configs
    from tagmill.models.training import evaluation, metrics
    from tagmill.runners.commands import evaluation_report as report

    request = scoring.Request(
        model,
        shards,
        split,
        truth,
        annotations,
        taglist,
        images,
        embeddings,
        batch_size,
        workers,
        device,
        dtype,
    )
    if threshold is not None and thresholds is not None:
        raise ConfigError("--threshold is one for all tags, --thresholds one for each: give one of them")
    config = configs.read(model)
    question = evaluation.ask(config, taglist, embeddings)
    limits = scoring.thresholds(config, question, threshold, thresholds)
    console = Console(soft_wrap=True)
    with scoring.scored(request, config, question, console) as (scored, kinds):
        found = metrics.measure(
            scored.store, question.names, limits, [kinds.get(name, "") for name in question.names]
        )
        images_read = len(scored.store.keys)
    report.write(out, found, images_read, str(model))
    report.show(console, found, images_read)
    scoring.say(console, f"{out}: report.html, tags.parquet, summary.json")


def calibrate(
    model: Model,
    out: Annotated[Path, typer.Option(help="folder for the thresholds and the table of their check")],
    shards: Shards = None,
    split: Split = None,
    truth: Truth = None,
    annotations: Annotations = None,
    taglist: TagList = None,
    images: Images = None,
    embeddings: Embeddings = None,
    precision: Annotated[
        float | None, typer.Option(min=0, max=1, help="least precision of each tag; default: the best F1")
    ] = None,
    hold_out: Annotated[float, typer.Option(min=0.01, max=0.99, help="share of images to check on")] = 0.3,
    min_positives: Annotated[int, typer.Option(min=1, help="images that a tag needs to be fitted")] = 10,
    apply: Annotated[
        bool, typer.Option("--apply", help="put the thresholds into the model's folder")
    ] = False,
    batch_size: BatchSize = 32,
    workers: Workers = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Choose each tag's threshold on labelled images, and check it on images that were held out."""
    from tagmill.models.ram import config as configs
    from tagmill.models.training import calibration, evaluation
    from tagmill.runners.commands import calibration_report as report

    request = scoring.Request(
        model,
        shards,
        split,
        truth,
        annotations,
        taglist,
        images,
        embeddings,
        batch_size,
        workers,
        device,
        dtype,
    )
    if apply and taglist is not None:
        raise ConfigError("--apply needs a threshold for every class of the model: leave --taglist out")
    config = configs.read(model)
    question = evaluation.ask(config, taglist, embeddings)
    console = Console(soft_wrap=True)
    own = None if config.thresholds is None else scoring.thresholds(config, question, None, None)
    aim = calibration.Aim(precision, hold_out, min_positives)
    with scoring.scored(request, config, question, console) as (scored, _):
        found = calibration.calibrate(scored.store, question.names, aim, own)
    report.write(out, found)
    report.show(console, found, aim, "the model's own" if own else f"the shared one, {found.shared:g}")
    scoring.say(console, f"{out}: thresholds.txt, calibration.parquet")
    if apply:
        chosen = tuple(tag.threshold for tag in found.tags)
        configs.write(config.model_copy(update={"thresholds": chosen}), model)
        scoring.say(console, f"{model}: has these thresholds now")
