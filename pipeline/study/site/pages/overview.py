"""The overview: what came in and what became of it, what the kept tags rest on, and how far the run is."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from tagmill.pipeline.study.evaluation import StepScores
from tagmill.pipeline.study.intervals import wilson
from tagmill.pipeline.study.site.base import Links, Page, PartTables, Sheet, SiteRun
from tagmill.pipeline.study.site.charts import Loss, Slice, Step, columns, flow, losses_of, percent, stacked
from tagmill.pipeline.study.site.pages.untagged import count_captions
from tagmill.tag_system.kinds import KINDS
from tagmill.tag_system.reasons import THIN, VOUCHERS
from tagmill.transforms.clean import Clean

MOST_TAGS = 15
"""Images with this number of kept tags or more are one column."""

IN_AND_OUT = """SELECT stage, examples_in, examples_out, dropped, dead
FROM stages;"""

KEPT_BY = """SELECT kind, basis, count(*) AS kept
FROM clean
WHERE verdict = 'kept'
GROUP BY ALL
ORDER BY kind, kept DESC, basis;"""

RULES = """SELECT verdict, rule, count(*) AS count
FROM clean
GROUP BY ALL
ORDER BY count DESC, verdict, rule;"""


class Overview(Page):
    """The page that people see first."""

    path, title = "index.html", "Overview"

    def __init__(self, site: SiteRun) -> None:
        super().__init__(site)
        self._captions: Counter[str] = Counter()
        self._tags_an_image: Counter[int] = Counter()

    def add(self, tables: PartTables) -> None:
        """Count captions that gave no tag, and images by their kept tags."""
        self._captions += count_captions(tables)
        if tables.decisions is not None:
            kept = tables.decisions.filter(pc.equal(tables.decisions["verdict"], "kept"))
            found = Counter(pc.value_counts(kept["row"]).field("counts").to_pylist())
            found[0] = tables.examples.num_rows - found.total()
            self._tags_an_image += found

    def sheets(self, links: Links) -> Iterator[Sheet]:
        """Make the page."""
        kept_by = _sum(row["kept_by"] for row in self.site.tags)
        values = {
            "headline": headline(self.site, kept_by),
            "flows": [one for one in self._flows() if one["drawn"]],
            "kept_by": vouchers(kept_by),
            "kept_by_bar": _basis_bar(kept_by),
            "kinds": list(self._kinds()),
            "tags_an_image": columns(self._columns(), title="Images by the number of their kept tags"),
            "stages": self.site.stages,
            "begun": self.site.begun,
            "quality": list(quality(self.site.scores)) if self.site.scores else None,
        }
        yield Sheet(self.path, self.title, "overview.html", values, [IN_AND_OUT, RULES, KEPT_BY])

    def _kinds(self) -> Iterator[dict[str, Any]]:
        """Give what kept tags rest on by kind."""
        for kind in KINDS:
            found = _sum(row["kept_by"] for row in self.site.tags if row["kind"] == kind)
            if found:
                yield {"kind": kind, "count": found.total(), "bar": _basis_bar(found), "thin": _thin(found)}

    def _columns(self) -> list[tuple[str, int]]:
        counts = self._tags_an_image
        last = min(max(counts, default=0), MOST_TAGS)
        found = [(str(number), counts[number]) for number in range(last)]
        more = sum(count for number, count in counts.items() if number >= last)
        return [*found, (f"{last}+" if max(counts, default=0) > last else str(last), more)]

    def _flows(self) -> Iterator[dict[str, Any]]:
        yield {
            "name": "Examples",
            "drawn": flow(_examples(self.site.stages), title="Examples from stage to stage"),
        }
        yield {"name": "Captions", "drawn": flow(self._caption_steps(), title="Captions that were read")}
        yield {"name": "Labels", "drawn": flow(_labels(self.site.labels), title="Given labels")}
        yield {"name": "Tags", "drawn": flow(_tags(self.site.tags), title="Tags from candidate to kept")}

    def _caption_steps(self) -> list[Step]:
        rows = [row for row in self.site.stages if row["captions_in"]]
        if not rows or not self._captions["read"]:
            return []
        first, read, silent = rows[0], self._captions["read"], self._captions["silent"]
        dead = [
            Loss(reason.removeprefix("caption/").replace("_", " "), count, "dead.html")
            for row in rows
            for reason, count in sorted(dict(row["dead"]).items())
            if reason.startswith("caption/")
        ]
        gone = first["captions_in"] - read - sum(loss.count for loss in dead)
        others = losses_of("of examples that went", max(gone, 0), "#examples")
        return [
            Step("given", first["captions_in"], (*dead, *others)),
            Step("parsed", read, losses_of("without a tag", silent, "untagged.html")),
            Step("with a tag", read - silent),
        ]


def _sum(counts: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(dict(one))
    return total


def _thin(kept_by: Mapping[str, int]) -> float:
    return sum(kept_by[basis] for basis in THIN if basis in kept_by) / sum(kept_by.values())


def vouchers(kept_by: Mapping[str, int]) -> list[dict[str, Any]]:
    """Say what kept tags rest on: words, count and share of each basis, and whether it stands alone."""
    total = sum(kept_by.values())
    return [
        {"basis": basis, "words": words, "count": count, "share": count / total, "is_thin": basis in THIN}
        for basis, words in VOUCHERS.items()
        if (count := kept_by.get(basis, 0))
    ]


def _basis_bar(kept_by: Mapping[str, int]) -> Any:
    slices = [Slice(one["words"], one["count"], f"basis-{one['basis']}") for one in vouchers(kept_by)]
    said = ", ".join(f"{one.name} {one.count:,}" for one in slices)
    return stacked(slices, title=f"Kept tags rest on: {said}")


def headline(site: SiteRun, kept_by: Counter[str]) -> str:
    """Say in a sentence what the run came to."""
    read = site.stages[0]["examples_in"] if site.stages else 0
    if Clean.name not in site.records:
        last = list(site.records)[-1] if site.records else "no stage"
        return f"{read:,} examples were read; {last} is the last stage that is whole, and no tag is decided."
    total = kept_by.total()
    if not total:
        return f"From {read:,} examples the run keeps no tag."
    thin = _thin(kept_by)
    share = f"{percent(thin)} of them rest" if thin else "None of them rests"
    said = (
        f"From {read:,} examples the run keeps {total:,} tags. {share} on one source that nothing confirms."
    )
    later = site.records[Clean.name].count("example", "out") - site.stages[-1]["examples_out"]
    return f"{said} {later:,} examples were left out after that, with their tags." if later > 0 else said


def _examples(stages: Sequence[Mapping[str, Any]]) -> list[Step]:
    """List the steps of examples: those that lose some, and the last."""
    steps: list[Step] = []
    for row in stages:
        dropped = [
            Loss(
                reason.replace("_", " "),
                count,
                "duplicates.html" if row["stage"] == "duplicates" else "#stages",
            )
            for reason, count in sorted(dict(row["dropped"]).items())
        ]
        dead = [
            Loss(reason.removeprefix("example/").replace("_", " "), count, f"dead.html#{row['stage']}")
            for reason, count in sorted(dict(row["dead"]).items())
            if reason.startswith("example/")
        ]
        if not steps or dropped or dead:
            steps.append(Step(f"into {row['stage']}", row["examples_in"], (*dropped, *dead)))
    return [*steps, Step("left", stages[-1]["examples_out"])] if steps else []


def _labels(labels: Sequence[Mapping[str, Any]]) -> list[Step]:
    given = sum(row["given"] for row in labels)
    lost = sum(row["given"] for row in labels if row["tag"] is None)
    losses = losses_of("without a tag", lost, "untagged.html#labels")
    return [Step("given", given, losses), Step("names of tags", given - lost)] if given else []


def _tags(tags: Sequence[Mapping[str, Any]]) -> list[Step]:
    images, proposed, kept = (sum(row[name] for row in tags) for name in ("images", "proposed", "kept"))
    rules = _sum(row["rules"] for row in tags)
    losses = [
        Loss(
            rule.partition("/")[2].replace("_", " "), count, f"tags.html?rule={rule}", rule.partition("/")[0]
        )
        for rule, count in sorted(rules.items(), key=lambda pair: (-pair[1], pair[0]))
        if not rule.startswith("kept/") and not rule.endswith("/not_proposed")
    ]
    if not images:
        return []
    return [
        Step("candidates", images, losses_of("not proposed", images - proposed, "tags.html")),
        Step("proposed", proposed, tuple(losses)),
        Step("kept", kept),
    ]


def quality(scores: Mapping[str, StepScores]) -> Iterator[dict[str, Any]]:
    """Give precision and recall of the kept tags against a truth, with 95 % intervals."""
    step = scores[Clean.name]
    total = step.micro()
    yield {
        "images": step.images,
        "precision": total.precision,
        "precision_interval": wilson(total.right, total.right + total.wrong),
        "recall": total.recall,
        "recall_interval": wilson(total.right, total.right + total.missed),
    }
