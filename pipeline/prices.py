"""What machines and space cost, as a config says it."""

from pydantic import Field

from tagmill.tag_system.core.config import Config


class Machine(Config):
    """A kind of machine: what it is called, its cores and accelerators, and its price an hour."""

    name: str = ""
    cores: int = Field(1, ge=1)
    gpus: int = Field(0, ge=0)
    hour: float = Field(ge=0)


class Prices(Config):
    """The prices of machines, of a gigabyte for a month and of a thousand requests to a store, in `currency`.

    Stages without a model run on `cpu`, those with one on `gpu`; None is as `cpu`. Listings count as writes.
    """

    currency: str = "USD"
    cpu: Machine | None = None
    gpu: Machine | None = None
    gigabyte_month: float | None = Field(None, ge=0)
    thousand_reads: float | None = Field(None, ge=0)
    thousand_writes: float | None = Field(None, ge=0)
