"""Writes what `tagmill diff` found as pages that open without server and network."""

from tagmill.pipeline.study.decided import Decided
from tagmill.pipeline.study.diff import DiffFindings
from tagmill.pipeline.study.diff_pages import cell, overview
from tagmill.pipeline.study.diff_pages.base import MENU, ShownDiff, ShownSide, cell_pages, short_names
from tagmill.pipeline.study.diff_pages.pictures import DiffPictures, make_pictures
from tagmill.pipeline.study.site.base import Links
from tagmill.pipeline.study.site.folder import FolderRule, SiteMade, replaced_folder
from tagmill.pipeline.study.site.pictures import NO_PICTURE, ShownExample
from tagmill.pipeline.study.site.rendering import STYLE, House

RULE = FolderRule("comparison", "tagmill-diff.txt", "diff", "--pages")
"""The folder is no site of a run, so that neither takes the place of the other."""


def write_pages(
    a: Decided, b: Decided, found: DiffFindings, folder: str, *, private: bool = False
) -> SiteMade:
    """Write the pages of a comparison into a local folder, which is there whole or as it was.

    Raises ConfigError for a folder that is not on this machine, or that holds something else, DamageError.
    """
    names = short_names(a.title, b.title)
    house = House(
        name=" → ".join(names),
        menu=MENU,
        links=Links(),
        command="diff",
        package=__package__,
        styles=(STYLE, "diff.css"),
    )
    with replaced_folder(folder, RULE, house) as writer:
        moved = [one for some in found.examples.values() for one in some]
        if private or not moved:
            keys = {one.key for one in moved}
            pictures = DiffPictures({key: ShownExample(key, "", lack=NO_PICTURE) for key in keys})
        else:
            pictures = make_pictures((a.images(), b.images()), moved, writer.root)
        counts = (found.images.a, found.images.b)
        sides = [
            ShownSide(name, side.policy, count)
            for name, side, count in zip(names, (a, b), counts, strict=True)
        ]
        comparison = ShownDiff(
            sides=(sides[0], sides[1]),
            found=found,
            unknown=sorted(a.unknown | b.unknown),
            pages=cell_pages(found),
            shown=pictures.shown,
            box_sides=pictures.box_sides,
        )
        writer.write(overview.sheet(comparison))
        for sheet in cell.sheets(comparison):
            writer.write(sheet)
        return writer.made(pictures.shown.values(), private=private)
