"""What the commands that look at a run print: plan, status, verify, gc."""

import json
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

from rich.console import Console

from tagmill.pipeline.absent import check_absent
from tagmill.pipeline.current import begun_records
from tagmill.pipeline.dead_letters import DeadReason, with_examples
from tagmill.pipeline.garbage import garbage
from tagmill.pipeline.lease import Lease, read_lease
from tagmill.pipeline.plan import StagePlan
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.near_report import near_counts
from tagmill.pipeline.summary import StageSummary, summary_of
from tagmill.pipeline.verify import check_root, verify
from tagmill.runners.commands.fitted import FittedTable, columns_of
from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import Config, flatten
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.core.text import dump_json
from tagmill.tag_system.reasons import vouched
from tagmill.tag_system.shard_contract import MANIFEST, parse_manifest
from tagmill.transforms.shards import Shards

SHOWN_REASONS = 5

COUNTS = ("parts", "in", "out", "dropped", "dead", "captions")
"""What `status` counts of a stage: all but the parts are examples, and of captions those that are dead."""


def show_plan(console: Console, driver: Driver) -> None:
    """Print, for each stage, what a run would make and why."""
    total = 0
    for plan in driver.plan():
        total += not plan.is_whole
        for line in plan_lines(driver, plan):
            console.print(line, highlight=False, markup=False)
    console.print("nothing to do" if not total else "`tagmill run` makes it", highlight=False)


def plan_lines(driver: Driver, plan: StagePlan[Any]) -> Iterator[str]:
    """Say in a line what is to be made of a stage, and in indented ones why."""
    _, total, unit = driver.extent(plan)
    if plan.unknown and plan.touched is not None:
        most = f"up to {len(plan.touched)} of {total} {unit}{_hours(driver, plan, len(plan.touched))}"
        yield f"{plan.stage.name}: {most}, as its inputs are made"
    elif plan.unknown:
        yield f"{plan.stage.name}: all or some of its {unit}, as its inputs are made"
    elif plan.is_whole:
        yield f"{plan.stage.name}: up to date, {total} {unit}"
    else:
        hours = _hours(driver, plan, len(plan.tasks))
        yield f"{plan.stage.name}: {', '.join(_to_do(plan, unit))}{hours}"
    changes = config_changes(driver, plan)
    reasons = plan.reasons if plan.tasks and not changes else []
    for line in [*changes, *reasons[:SHOWN_REASONS]]:
        yield f"  {line}"
    if len(reasons) > SHOWN_REASONS:
        yield f"  and {len(reasons) - SHOWN_REASONS} more"


def _hours(driver: Driver, plan: StagePlan[Any], count: int) -> str:
    """Say how long a worker would take for some parts of a stage, by those that are there; "" if unknown."""
    current = driver.run_folder.current(plan.stage.name)
    record = driver.run_folder.read_record(plan.stage.name, current) if current else None
    seconds = [part.seconds.get("total", 0.0) for part in record.parts.values()] if record else []
    hours = count * sum(seconds) / max(len(seconds), 1) / 3600
    return f", about {hours:.1f} hours of one worker" if hours >= 0.1 else ""


def _to_do(plan: StagePlan[Any], unit: str) -> Iterator[str]:
    if plan.tasks:
        yield f"make {len(plan.tasks)} of {len(plan.done) + len(plan.tasks)} {unit}"
    if plan.adopted:
        for lender in dict.fromkeys(adoption.lender for adoption in plan.adopted.values()):
            taken = [adoption.bytes for adoption in plan.adopted.values() if adoption.lender == lender]
            yield f"take {len(taken)} {unit} over from {lender or 'other settings'}, {sum(taken):,} bytes"
    if plan.strays:
        yield f"move {len(plan.strays)} parts of removed sources away"
    if plan.unfinished and not plan.tasks:
        yield plan.unfinished


def config_changes(driver: Driver, plan: StagePlan[Any]) -> list[str]:
    """Say which settings differ from those of the stage's current generation."""
    name = plan.stage.name
    current = driver.run_folder.current(name)
    if current is None or current == plan.generation:
        return []
    record = driver.run_folder.read_record(name, current)
    if record is None:
        return []
    was, now = _flat_spec(record.spec, record.version), _flat_spec(plan.stage.spec, plan.stage.version)
    before = _defaults(plan.stage.config) | flatten(record.settings) | was
    after = flatten(plan.stage.settings) | now
    changes = [
        f"{key} {_shown(before.get(key))} -> {_shown(after.get(key))}"
        for key in sorted(was.keys() | now.keys())
        # A constant of a rule that is no longer chosen is not a change of its own.
        if was.get(key) != now.get(key) and (key in after or key.startswith("("))
    ]
    return changes or ["the settings of an earlier stage changed"]


def _defaults(config: Config) -> dict[str, object]:
    """Give the defaults of a config, for keys that the version which made the run did not have."""
    return flatten(type(config).model_construct().model_dump(mode="json", warnings=False))


def _flat_spec(spec: dict[str, Any], version: int) -> dict[str, object]:
    """Name what decides a stage's output: its keys as the config has them, and what else there is."""
    others = {f"({name})": value for name, value in spec.items() if name != "config"}
    return flatten(spec["config"]) | flatten(others | {"(version)": version})


def _shown(value: object) -> str:
    """Write a setting as a config file has it."""
    return value if isinstance(value, str) else json.dumps(value)


def show_status(console: Console, folder: str, *, as_json: bool = False) -> None:
    """Print the stages of a run, whatever its state: current generation, parts, examples, dead letters."""
    run = open_run(folder)
    with ThreadPoolExecutor() as pool:  # each waits for a store
        others = pool.submit(lambda: list(begun_records(run)))
        counted = pool.submit(near_counts, run)
        held = pool.submit(read_lease, run.path("lease.json"))
        kept = pool.submit(_kept_by, run)
        summary = summary_of(run)
        unfinished, near, lease = others.result(), counted.result(), held.result()
        kept_by = kept.result()
    whole = summary.stages
    begun = [(StageSummary.of(one.record), one.parts) for one in unfinished]
    letters = _letters(run, [*whole, *(one for one, _ in begun)])
    digests = {"bytes": summary.bytes, "content": summary.content}
    if as_json:
        rows = [_status_row(one, one.parts, is_whole=True) for one in whole]
        rows += [_status_row(one, count, is_whole=False) for one, count in begun]
        dead = [vars(one) for one in letters]
        said = {"stages": rows, "dead_letters": dead, "driver": lease, "digests": digests, "kept_by": kept_by}
        console.out(dump_json(said | ({"near_duplicates": vars(near)} if near else {})))
        return
    table = FittedTable(columns_of(("stage", "generation"), COUNTS, cut=("stage",)))
    for one in whole:
        table.add_row(one.stage, *_cells(one, one.parts))
    for one, count in begun:
        table.add_row(one.stage, *_cells(one, count))
    console.print(table)
    console.print("in, out, dropped, dead: examples; captions: those that are dead", highlight=False)
    for one, count in begun:
        of = f": its counts are of {one.parts:,} of {count:,} parts" if one.parts < count else ""
        console.print(f"{one.stage} is not whole{of}", highlight=False)
    for letter in letters:
        console.print(f"dead {letter.unit}s of {letter.stage}: {letter.said()}", highlight=False)
    if near:
        console.print(near.said(), highlight=False)
    if kept_by:
        console.print(f"kept tags rest on: {vouched(kept_by)}", highlight=False)
    driver = f"process {lease['pid']} on {lease['host']}" if lease else "nobody"
    if lease and lease["host"] != socket.gethostname():
        driver += ", unless that was killed: `tagmill run` watches its heartbeat"
    console.print(f"driven by {driver}", highlight=False)
    console.print(f"digest of its bytes:   {digests['bytes']}", highlight=False)
    console.print(f"digest of its content: {digests['content']} (equal for equal runs)", highlight=False)


def _kept_by(run: RunFolder) -> dict[str, int]:
    """Read from the current shards how many kept tags rest on what; nothing while there are none."""
    generation = run.current(Shards.name)
    uri = files.join(run.generation(Shards.name, generation or ""), MANIFEST)
    try:
        return parse_manifest(files.read_bytes(uri), run.root).kept_by
    except FileNotFoundError:
        return {}


def _letters(run: RunFolder, found: Sequence[StageSummary]) -> list[DeadReason]:
    """Count the dead letters of stages by reason, an example of each read at the same time."""

    def of(one: StageSummary) -> list[DeadReason]:
        return list(with_examples(run, one.stage, one.generation, one.dead))

    with ThreadPoolExecutor(files.THREADS) as pool:
        return list(chain.from_iterable(pool.map(of, found)))


def _cells(one: StageSummary, count: int) -> list[str]:
    counts = [str(one.counts["example"][what]) for what in ("in", "out", "dropped")]
    dead = [str(one.counts[unit]["dead"]) for unit in ("example", "caption")]
    return [one.generation, str(count), *counts, *dead]


def _status_row(one: StageSummary, count: int, *, is_whole: bool) -> dict[str, Any]:
    captions = {what: one.counts["caption"][what] for what in ("in", "dead")}
    about = {"stage": one.stage, "generation": one.generation, "whole": is_whole}
    row = {**about, "parts": count, "examples": one.counts["example"], "captions": captions}
    return row if one.parts == count else row | {"parts_counted": one.parts}


def open_run(folder: str) -> RunFolder:
    """Open a run's folder. Raises ConfigError if it is not one."""
    run = RunFolder(folder)
    if not files.exists(run.path("run.yaml")):
        raise ConfigError(f"{folder} is not a run folder: it has no run.yaml")
    run.saved_config()
    return run


def show_verify(console: Console, folder: str, root: str | None = None, absent: str | None = None) -> None:
    """Check a run and print what is wrong; `root` is a digest of its bytes that `status` printed before,
    `absent` a file of what must not be in it.

    Raises DamageError if anything is wrong.
    """
    damaged = 0
    run = open_run(folder)
    found = chain(verify(run), check_root(run, root) if root else ())
    for stage, checked, problems in check_absent(run, absent) if absent else found:
        wrong = "with what is excluded" if absent else "damaged"
        console.print(f"{stage}: {checked} checked, {len(problems)} {wrong}", highlight=False)
        for problem in problems:
            console.print(f"  {problem}", highlight=False, markup=False)
        damaged += len(problems)
    if damaged and absent:
        raise DamageError(f"{damaged} files hold what {absent} excludes")
    if damaged:
        raise DamageError(f"{damaged} damaged; remove the damaged files and run again")


def show_gc(console: Console, folder: str, *, dry_run: bool) -> None:
    """Remove garbage, under the run's lease, and print what went."""
    run = open_run(folder)
    if dry_run:
        _collect(console, run, remove=False)
        return
    with Lease(run.path("lease.json")):
        _collect(console, run, remove=True)


def _collect(console: Console, run: RunFolder, *, remove: bool) -> None:
    total = 0
    for path, size in garbage(run):
        total += size
        said = f"{'removed' if remove else 'would remove'} {path}: {size:,} bytes"
        console.print(said, highlight=False, markup=False)
        if remove:
            files.remove(path)
    console.print(f"{total:,} bytes in all", highlight=False)
