"""Writes the audit site of a run: a folder of pages that opens without server and network."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from PIL import Image as pillow

from tagmill.pipeline.current import begun_records, current_records
from tagmill.pipeline.run_folder import REPORT, RunFolder
from tagmill.pipeline.study.evaluation import Truth, score_run
from tagmill.pipeline.study.example import Example, PixelReader, gather_examples
from tagmill.pipeline.study.further_boxes import further_boxes
from tagmill.pipeline.study.near_report import NEAR_TABLE
from tagmill.pipeline.study.report import LABELS, SITE, SITE_MARK, STAGES, TAGS, report_tables, stage_row
from tagmill.pipeline.study.site import rendering
from tagmill.pipeline.study.site.base import Links, Page, Place, Sheet, SiteOptions, SiteRun
from tagmill.pipeline.study.site.folder import FolderRule, SiteMade, SiteWriter, plain, replaced_folder
from tagmill.pipeline.study.site.pages import image
from tagmill.pipeline.study.site.pages.dead import DeadLetters
from tagmill.pipeline.study.site.pages.duplicates import DuplicatesPage
from tagmill.pipeline.study.site.pages.licences import Licences
from tagmill.pipeline.study.site.pages.made_of import MadeOf
from tagmill.pipeline.study.site.pages.overview import Overview
from tagmill.pipeline.study.site.pages.queries import Queries
from tagmill.pipeline.study.site.pages.tags import Tags
from tagmill.pipeline.study.site.pages.untagged import Untagged
from tagmill.pipeline.study.site.pages.weakest import Weakest
from tagmill.pipeline.study.site.pictures import (
    NO_PICTURE,
    PictureMaker,
    ShownExample,
    encoded,
    made_small,
    page_of,
)
from tagmill.pipeline.study.site.walk import walk
from tagmill.tag_system.core import files
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.clean import Clean

PAGES: tuple[type[Page], ...] = (
    Overview,
    Tags,
    Weakest,
    Untagged,
    DuplicatesPage,
    DeadLetters,
    Licences,
    MadeOf,
    Queries,
)
"""The subjects of the site, in the order of its menu."""

RULE = FolderRule("site", SITE_MARK, "report", "--to")

AT_ONCE = 512
"""Examples that are in memory together: for each lot the cluster table is read once."""


def site_folder(run: RunFolder) -> str | None:
    """Say where a run has its site; None for a run that is not on this machine."""
    return run.path(REPORT, SITE) if files.is_local(run.root) else None


def write_site(run: RunFolder, folder: str, options: SiteOptions, truth: Truth | None = None) -> SiteMade:
    """Write the site of a run into a local folder, which is there whole or as it was.

    Raises ConfigError for a folder that is not on this machine, or that holds something else.
    """
    RULE.target(folder)  # before the run is read, which may take long
    site = open_site(run, options, truth)
    pages = [page(site) for page in PAGES]
    walk(site, pages)
    links = Links(tags={row["tag"]: _tag_path(place, row["tag"]) for place, row in enumerate(site.tags)})
    house = rendering.House(site.name, {page.path: page.title for page in pages}, links)
    with replaced_folder(folder, RULE, house) as writer:
        _write_examples(site, pages, writer)
        for page in pages:
            for sheet in page.sheets(links):
                writer.write(_askable(sheet, site))
        return writer.made(links.examples.values(), private=options.private)


def open_site(run: RunFolder, options: SiteOptions, truth: Truth | None = None) -> SiteRun:
    """Read what a run says of itself as a whole, in whatever state it is."""
    records = {record.stage: record for record in current_records(run)}
    begun = list(begun_records(run))
    config = run.saved_config() or {}
    tables = report_tables(run, Vocabulary.load(config.get("vocabulary")))
    rows = {name: table.to_pylist() for name, table in tables.items() if name != NEAR_TABLE}
    scores = score_run(run, truth) if truth and Clean.name in records else None
    return SiteRun(
        run=run,
        name=Path(files.filesystem(run.root)[1]).name,
        records=records,
        begun=begun,
        config=config,
        stages=[*rows.get(STAGES, []), *(stage_row(run, one.record) for one in begun)],
        tags=rows.get(TAGS, []),
        labels=rows.get(LABELS, []),
        near=tables.get(NEAR_TABLE),
        options=options,
        scores=scores,
    )


def _tag_path(place: int, tag: str) -> str:
    """Name a tag's page: by its place, as names of files must not depend on what a tag is called."""
    return f"tags/{place:04d}-{plain(tag)}.html"


def _askable(sheet: Sheet, site: SiteRun) -> Sheet:
    """Leave out queries of tables that the run does not have."""
    return replace(sheet, queries=site.askable(sheet.queries))


def _write_examples(site: SiteRun, pages: Sequence[Page], writer: SiteWriter) -> None:
    """Write pages and pictures of all examples that any page shows, part by part."""
    chosen, tags = _chosen(pages)
    examples = (
        ((one, tags[one.part, one.row]) for one in gather_examples(site.run, chosen)) if chosen else iter(())
    )
    maker = None if site.options.private else PictureMaker(PixelReader(site.run), writer.root)
    while some := list(islice(examples, AT_ONCE)):
        further = further_boxes(site.run, [example for example, _ in some])
        shown = maker.make(some) if maker else (_unpictured(example) for example, _ in some)
        for (example, _), found, boxes in zip(some, shown, further, strict=True):
            writer.house.links.examples[example.part, example.row] = found
            writer.write(_askable(image.sheet(example, found, writer.house.links, boxes), site))


def _unpictured(example: Example) -> ShownExample:
    return ShownExample(example.key, page_of(example.key), lack=NO_PICTURE)


def _chosen(pages: Sequence[Page]) -> tuple[dict[str, list[tuple[int, str]]], dict[Place, set[str]]]:
    """Put together which examples pages show, by part, and of which tags they show the box."""
    keys: dict[Place, str] = {}
    tags: dict[Place, set[str]] = {}
    for page in pages:
        for table in page.chosen():
            for row in table.select(
                [name for name in ("part", "row", "key", "tag") if name in table.column_names]
            ).to_pylist():
                place = row["part"], row["row"]
                keys[place] = row["key"]
                tags.setdefault(place, set()).update({row["tag"]} if "tag" in row else ())
    by_part: dict[str, list[tuple[int, str]]] = {}
    for (part, number), key in sorted(keys.items()):
        by_part.setdefault(part, []).append((number, key))
    return by_part, tags


def example_page(run: RunFolder, example: Example) -> bytes:
    """Make the page of any example as one file that needs no other."""
    pictures: dict[str, bytes] = {}
    try:
        small = made_small(pillow.fromarray(PixelReader(run).read(example)))
        pictures["picture"] = encoded(small)
        shown = ShownExample(example.key, "index.html", "picture", small.width, small.height)
    except PictureMaker.LACKING as error:
        shown = ShownExample(example.key, "index.html", lack=str(error))
    (further,) = further_boxes(run, [example])
    name = Path(files.filesystem(run.root)[1]).name
    return rendering.alone(image.sheet(example, shown, Links(), further), name, pictures)
