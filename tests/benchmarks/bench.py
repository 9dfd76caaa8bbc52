"""All benchmarks in short forms, one after the other, and tables of what they measured: `make bench`.

    python tests/benchmarks/bench.py [BENCHMARK ...]

It leaves figures.csv and figures.md in build/bench. Each ratio among them comes from one run, and is what
holds on other machines; sizes are small, and each benchmark has larger ones as its defaults. On two idle
cores all take less than a quarter of an hour. What needs photographs or captions is left out where
../shared/data is missing. Always left out are `engine_effect.py`, with its parts effect_*.py, whose 35
trainings take hours, and `store_loading.py`, which needs a server.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path

import yaml
from figures import FILE, Figure, csv_table, markdown_tables, read

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = ROOT.parent / "shared" / "data"
OUT = ROOT / "build" / "bench"


@dataclass(frozen=True)
class Short:
    """A benchmark in short: its script, and arguments that name what it needs, as `Places` has it."""

    script: str
    arguments: str

    @property
    def title(self) -> str:
        """The command as it is written in the tables."""
        return f"{self.script}.py {self.arguments}".strip()

    def needs(self, place: str) -> bool:
        """Whether the arguments name a place."""
        return f"{{{place}}}" in self.arguments


SHORT = (
    Short("accelerator", "--size small --images 16 --batch 4 --seconds 0.2"),
    Short("caption_parser", "speed {data} --captions 5000"),
    Short("caption_parser", "memory {data} --captions 20000 --mode fast"),
    Short("caption_parser", "batches {data} --captions 500"),
    Short("caption_quality", "gold {data}"),
    Short("caption_quality", "gold {data} --mode fast"),
    Short("caption_quality", "coco {data}"),
    Short("caption_quality", "sugarcrepe {data}"),
    Short("captions", "--rounds 1 --batch 4 --tokens 12"),
    Short("class_subsets", "--encoder --rounds 1 --batch 4 --count 100 --scenes 100"),
    Short("draft_effect", "{data}/{photos} {data}/weights {data}/vocab/imagenet1k.tsv --images 20"),
    Short("draft_effect", "{data}/{photos} {data}/weights {data}/vocab/imagenet1k.tsv --images 20 --draft 1"),
    Short("evaluation_memory", "--images 10000"),
    Short("growing", "--nights 2 --scenes 400"),
    Short("half_precision", "--scenes 100"),
    Short("model_waits", "--images 32 --side 1500"),
    Short("overfit", "--out {out}/overfit --kinds ram_plus --steps 100"),
    Short("prompt_mates", "--scenes 16"),
    Short("ram_head", "--rounds 1 --batch 4"),
    Short("stage_times", "{run}"),
    Short("bare_loop", "{quarter} --workers 1 --rounds 1"),
    Short("loader_speed", "{shards} --rounds 2 --batches 10"),
    Short("two_processes", "{recipe} --rounds 1 --batch 32"),
    Short("without_torch", "--rounds 3"),
    Short("cleaning_rules", "{run}/demo.yaml {truth} --paper-threshold 0.7"),  # last: it changes the run
)

LEFT_OUT = ("engine_effect", "store_loading")


class Places:
    """What arguments name: files and folders, some of which are made when they are first asked for."""

    data, out, truth, photos = DATA, OUT, ROOT / "models/demo/data/truth.parquet", "photos/coco-000000.tar"

    @cached_property
    def run(self) -> Path:
        """The run of the demo, made by two workers."""
        command = ["-m", "tagmill.runners.cli", "demo", "--run", str(OUT / "demo"), "--workers", "2"]
        subprocess.run([sys.executable, *command], check=True, cwd=ROOT)
        return OUT / "demo"

    @property
    def shards(self) -> Path:
        """The dataset of the run."""
        (manifest,) = self.run.glob("shards/*/manifest.json")
        return manifest.parent

    @property
    def quarter(self) -> Path:
        """The demo's config, on a quarter of its scenes."""
        config = (self.run / "demo.yaml").read_text()
        path = OUT / "quarter.yaml"
        path.write_text(config.replace("scenes-*.tar", "scenes-000000.tar"))
        return path

    @property
    def recipe(self) -> Path:
        """The demo's recipe, on half of its scenes."""
        recipe = yaml.safe_load((ROOT / "docs/examples/train.yaml").read_text())
        recipe["data"]["datasets"] = [{"path": str(self.shards), "weight": 0.5}]
        path = OUT / "train.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return path

    def fill(self, argument: str) -> str:
        """Put paths into the place of names."""
        return argument.format_map(self)

    def __getitem__(self, name: str) -> str:
        return str(getattr(self, name))


def run(benchmark: Short, number: int, places: Places) -> list[Figure] | None:
    """Run one in a process of its own; gives its figures, or None if it failed."""
    said = OUT / f"{number:02}-{benchmark.script}.jsonl"
    paths = [str(ROOT / "tests/support"), str(ROOT / "docs/examples"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        FILE: str(said),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    try:
        arguments = [places.fill(argument) for argument in benchmark.arguments.split()]
        command = [sys.executable, str(HERE / f"{benchmark.script}.py"), *arguments]
        subprocess.run(command, check=True, cwd=ROOT, env=environment)
    except subprocess.CalledProcessError:
        return None
    return read(said)


def machine() -> dict[str, str]:
    """Say what measures."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": f"{os.cpu_count()}, with a load of {os.getloadavg()[0]:.1f} when it began",
        "Python": platform.python_version(),
        "torch": metadata.version("torch"),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def write_tables(head: dict[str, str], measured: dict[str, list[Figure]]) -> None:
    """Write both tables."""
    figures = [figure for some in measured.values() for figure in some]
    (OUT / "figures.csv").write_text(csv_table(figures))
    (OUT / "figures.md").write_text(markdown_tables(head, measured))


def choose(names: Sequence[str]) -> list[Short]:
    """Choose those of these names, or all; without those whose data are not there."""
    if unknown := set(names) - {benchmark.script for benchmark in SHORT}:
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such benchmark in bench.py; see its table SHORT")
    chosen = [benchmark for benchmark in SHORT if not names or benchmark.script in names]
    if not DATA.is_dir():
        for benchmark in chosen:
            if benchmark.needs("data"):
                say_line(f"{benchmark.title}: left out, as {DATA} is not there")
        chosen = [benchmark for benchmark in chosen if not benchmark.needs("data")]
    return chosen


def spent() -> float:
    """CPU seconds of all processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def say_line(text: str) -> None:
    """Print a line before what the next process prints."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", help="names of scripts; default: all")
    chosen = choose(parser.parse_args().benchmarks)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    head, places, start = machine(), Places(), time.monotonic()
    measured: dict[str, list[Figure]] = {}
    failed = []
    for number, benchmark in enumerate(chosen):
        say_line(f"\n== {benchmark.title}")
        begun = time.monotonic(), spent()
        found = run(benchmark, number, places)
        say_line(f"== took {time.monotonic() - begun[0]:.0f} s, {spent() - begun[1]:.0f} s of processors")
        if found is None:
            failed.append(benchmark.title)
        else:
            measured[benchmark.title] = found
        write_tables(head, measured)
    minutes = f"{(time.monotonic() - start) / 60:.1f} minutes, {spent() / 60:.1f} of processors"
    say_line(f"\n{OUT / 'figures.csv'} and figures.md, in {minutes}")
    if failed:
        raise SystemExit(f"failed, and not in the tables: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
