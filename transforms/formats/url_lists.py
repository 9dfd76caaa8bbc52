"""Lists of urls, as LAION, CC12M and DataComp are given: nothing is downloaded here; says what does it."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms.formats.base import InputConfig, Source
from tagmill.transforms.formats.fields import OTHER_CAPTIONS, USUAL_CAPTIONS

URLS = ("url", "URL", "Url", "image_url", "img_url", "image_link", "link", "photo_image_url")
"""What fields with the url of an image are called."""

ENOUGH = 10
"""So many examples with a url and no image, and none with one before, are a list of urls."""


def url_name(fields: Mapping[str, Any]) -> str | None:
    """Name the field that holds the url of an image; None if there is none."""
    return next((name for name in URLS if is_url(fields.get(name))), None)


def is_url(value: Any) -> bool:
    """Tell whether a value is the url of something to download."""
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def url_list_error(
    source: Source, config: InputConfig, input_format: str, url: str, names: Sequence[str]
) -> ConfigError:
    """Make the error of a list of urls, with the command of img2dataset that makes tars of it.

    `input_format` is img2dataset's name of the file's format, `url` the column of urls, `names` all columns.
    """
    usual = (*(config.captions or ()), *USUAL_CAPTIONS, *OTHER_CAPTIONS)
    caption = next((name for name in usual if name in names), None)
    folder = f"{config.name}-tars"
    command = ["img2dataset", "--url_list", source.uri, "--input_format", input_format, "--url_col", url]
    command += ["--caption_col", caption] if caption else []
    command += ["--output_format", "webdataset", "--output_folder", folder]
    return ConfigError(
        f"input {config.name}: {source.uri} lists urls (`{url}`) and no images, and nothing is downloaded "
        f"here; make tars of it: {shlex.join(command)}; then read these: format webdataset, "
        f"path {folder}/*.tar (docs/inputs.md)"
    )


def no_header_error(source: Source, config: InputConfig) -> ConfigError:
    """Make the error of a list of urls without a line that names its columns, as CC12M's is."""
    return ConfigError(
        f"input {config.name}: {source.uri} lists urls and has no line that names its columns: write one, "
        f"`url` and `caption` in their order, such as sed -i '1i url\\tcaption' {shlex.quote(source.uri)}"
    )
