"""Says what pages were written, and which pictures they lack."""

from rich.console import Console

from tagmill.pipeline.study.site.folder import SiteMade


def say_made(console: Console, folder: str, made: SiteMade) -> None:
    """Print where the pages begin, and how much there is of them."""
    said = f"{folder}/index.html: {made.pages:,} pages, {made.pictures:,} pictures, {made.bytes:,} bytes"
    console.print(said, markup=False, highlight=False)
    if made.lacking:
        lack = f"  {made.lacking:,} images have no picture, such as {made.lack}"
        console.print(lack, markup=False, highlight=False)
