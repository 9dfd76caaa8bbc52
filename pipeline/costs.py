"""What a forecast costs, by the prices of a config."""

from tagmill.pipeline.forecast import HOUR, Forecast, StageForecast
from tagmill.pipeline.prices import Prices
from tagmill.tag_system.core.store_requests import StoreRequests

GIGABYTE = 10**9


def price_of(stage: StageForecast, prices: Prices, *, on_gpu: bool) -> float | None:
    """Say what the machines of a stage cost; None if no price is known.

    A stage that was measured with an accelerator pays for the hours of one, any other for the cores that it
    keeps busy.
    """
    machine = prices.gpu if stage.uses_model and prices.gpu else prices.cpu
    if machine is None:
        return None
    if on_gpu and stage.uses_model and machine.gpus:
        return stage.wall / HOUR / machine.gpus * machine.hour
    return stage.cpu / HOUR / machine.cores * machine.hour


def requests_price(requests: StoreRequests, prices: Prices) -> float | None:
    """Say what requests to object stores cost; None if no price is known."""
    if prices.thousand_reads is None and prices.thousand_writes is None:
        return None
    reads, writes = prices.thousand_reads or 0, prices.thousand_writes or 0
    return (requests.reads * reads + requests.writes * writes) / 1000


def space_price(forecast: Forecast, prices: Prices) -> float | None:
    """Say what a month of the run's folder costs; None if no price is known."""
    if prices.gigabyte_month is None:
        return None
    return sum(stage.bytes for stage in forecast.stages) / GIGABYTE * prices.gigabyte_month
