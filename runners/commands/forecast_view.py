"""`tagmill plan --measure`: what a run will take, and what that costs."""

from dataclasses import asdict, dataclass

from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.costs import price_of, requests_price, space_price
from tagmill.pipeline.forecast import HOUR, Forecast, StageForecast, forecast
from tagmill.runners.commands.fitted import FittedTable, columns_of
from tagmill.runners.local import LocalEngine
from tagmill.tag_system.core.store_requests import NONE
from tagmill.tag_system.core.text import dump_json


@dataclass(frozen=True)
class ForecastRequest:
    """What is asked: examples to measure, those of the whole run if they are known, its worker processes.

    `scratch` is where the samples are made, None for this machine's own temporary folder.
    """

    count: int
    total: int | None
    workers: int
    as_json: bool
    scratch: str | None


def show_forecast(console: Console, config: RunConfig, request: ForecastRequest) -> None:
    """Measure samples, and print what the whole run will take. Raises ConfigError as `forecast` does."""
    engine = LocalEngine(0, PipelineOptions([]))
    found = forecast(config, engine, request.count, request.total, request.workers, request.scratch)
    on_gpu = _has_gpu() if any(stage.uses_model for stage in found.stages) else False
    if request.as_json:
        console.out(dump_json(_summary(found, config, on_gpu=on_gpu)))
        return
    hours = max(sum(stage.cpu for stage in found.stages), 1) >= HOUR
    unit, scale = ("h", HOUR) if hours else ("s", 1)
    total = _total(found)
    counted = total.requests != NONE
    columns = ("examples", "gone", f"CPU {unit}", f"one worker {unit}", "MB", *("requests",) * counted)
    priced = any(price_of(stage, config.prices, on_gpu=on_gpu) is not None for stage in found.stages)
    money = (config.prices.currency,) if priced else ()
    table = FittedTable(columns_of(("stage",), (*columns, *money), cut=("stage",)))
    for stage in found.stages:
        price = price_of(stage, config.prices, on_gpu=on_gpu)
        table.add_row(
            stage.stage,
            f"{stage.examples:,.0f}",
            f"{stage.gone:,.0f}",
            *_numbers(stage, scale),
            *_requests(stage, counted=counted),
            *_money(price, money),
        )
    prices = [price_of(stage, config.prices, on_gpu=on_gpu) or 0.0 for stage in found.stages]
    asked, paid = _requests(total, counted=counted), _money(sum(prices), money)
    table.add_row("all", "", "", *_numbers(total, scale), *asked, *paid, style="bold")
    console.print(table)
    for line in _remarks(found, config, request.total, on_gpu=on_gpu):
        console.print(line, highlight=False)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _numbers(stage: StageForecast, scale: int) -> tuple[str, str, str]:
    return f"{stage.cpu / scale:,.1f}", f"{stage.wall / scale:,.1f}", f"{stage.bytes / 10**6:,.1f}"


def _requests(stage: StageForecast, *, counted: bool) -> tuple[str, ...]:
    return (f"{stage.requests.reads + stage.requests.writes:,.0f}",) if counted else ()


def _money(price: float | None, shown: tuple[str, ...]) -> tuple[str, ...]:
    return ("" if price is None else f"{price:,.2f}",) if shown else ()


def _total(found: Forecast) -> StageForecast:
    sums = {name: sum(getattr(stage, name) for stage in found.stages) for name in ("cpu", "wall", "bytes")}
    requests = sum((stage.requests for stage in found.stages), NONE)
    return StageForecast("all", float(found.examples), 0.0, uses_model=False, requests=requests, **sums)


def _remarks(found: Forecast, config: RunConfig, total: int | None, *, on_gpu: bool) -> list[str]:
    """Say what the numbers are of."""
    known = "counted" if found.is_exact else "estimated by bytes; --total says it better"
    known = known if total is None else "as --total says"
    where = "with an accelerator" if on_gpu else "without an accelerator"
    lines = [
        f"{found.examples:,} examples ({known}); measured on {found.sample:,} of them, {where}. CPU: of all "
        "workers; one worker: how long it takes alone; MB: what stays in the run's folder."
    ]
    if (space := space_price(found, config.prices)) is not None:
        lines.append(f"A month of the run's folder: {space:,.2f} {config.prices.currency}.")
    asked = _total(found).requests
    if asked != NONE:
        price = requests_price(asked, config.prices)
        paid = "" if price is None else f": {price:,.2f} {config.prices.currency}"
        lines.append(
            f"Of object stores {asked.reads:,.0f} reads, {asked.writes:,.0f} writes and listings{paid}."
        )
    return lines


def _summary(found: Forecast, config: RunConfig, *, on_gpu: bool) -> dict[str, object]:
    stages = [
        asdict(stage) | {"price": price_of(stage, config.prices, on_gpu=on_gpu)} for stage in found.stages
    ]
    about = {"examples": found.examples, "counted": found.is_exact, "measured": found.sample, "gpu": on_gpu}
    return about | {"stages": stages, "currency": config.prices.currency}
