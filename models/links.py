"""Links in an object store, which has none of its own: a small file with the path of what it stands for.

    OUT/best   "link: steps/00000120", relative to the folder in which the link lies

A store replaces a small file in one go, so a link leads to the old or to the new, never to half of both.
"""

from tagmill.tag_system.core import files

_START, _LONGEST = b"link: ", 1000


def write(uri: str, target: str) -> None:
    """Have `uri` lead to a folder beside it."""
    files.replace_bytes(uri, _START + target.encode() + b"\n")


def read(uri: str) -> str | None:
    """Give what a link leads to, as it was written; None if there is no link of that name."""
    if not files.exists(uri) or files.is_folder(uri) or files.size_and_stamp(uri)[0] > _LONGEST:
        return None
    data = files.read_bytes(uri)
    return data.removeprefix(_START).decode().strip() if data.startswith(_START) else None


def follow(uri: str) -> str:
    """Give the uri to which a link leads; a uri that is not a link is given as it is."""
    target = read(uri)
    return uri if target is None else files.join(uri.rpartition("/")[0], target)
