import hashlib
import json
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

from sources import encode, square_image, write_tar
from stage_runs import Bench

# Outside of test files pytest says nothing of the values of an assertion unless asked to.
pytest.register_assert_rewrite("ingested", "webdatasets")

# The cores are shared, so time says nothing; what was found once is written down as a case of its own.
settings.register_profile(
    "transforms",
    deadline=None,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("transforms")


@pytest.fixture
def ingest(tmp_path):
    """Ingest examples given as {key: fields or member bytes} and return the bench."""

    def ingest(examples, config=None, part_size=5, **changes):
        contents = []
        for number, (key, fields) in enumerate(examples.items()):
            contents.append((f"{key}.png", encode(square_image(["red"], number))))
            contents.append(
                (f"{key}.json", fields if isinstance(fields, bytes) else json.dumps(fields).encode())
            )
        bench = Bench(tmp_path / "run", part_size=part_size)
        bench.ingest(write_tar(tmp_path / "data" / "a.tar", contents), config, **changes)
        return bench

    return ingest


@pytest.fixture
def store(tmp_path):
    """Three images as files and as ranges of one archive."""
    data = [
        encode(square_image(names, seed)) for seed, names in enumerate((["red"], ["blue"], ["green", "red"]))
    ]
    archive, offsets = b"", []
    for number, image in enumerate(data):
        (tmp_path / f"{number}.png").write_bytes(image)
        archive += b"\0" * 100
        offsets.append(len(archive))
        archive += image
    (tmp_path / "a.tar").write_bytes(archive)

    def examples(kind):
        for number, image in enumerate(data):
            place = (f"{number}.png", 0) if kind == "file" else ("a.tar", offsets[number])
            yield {
                "key": f"k{number}",
                "image": {"kind": kind, "uri": place[0], "offset": place[1], "size": len(image)},
                "width": 96,
                "height": 80,
                "sha256": hashlib.sha256(image).hexdigest(),
            }

    return SimpleNamespace(root=str(tmp_path), path=tmp_path, data=data, examples=lambda k: list(examples(k)))
