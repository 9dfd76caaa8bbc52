"""Images that are small on disk and huge in memory: they die of their header, and the others live."""

from hostile import flat_png
from hostile_inputs import BOMBS
from ingested import rows
from limited import run_limited
from sources import encode, square_image, write_tar
from stage_runs import Bench
from tagmill.transforms.ingest import IngestConfig

GIB = 1 << 30
GOOD = encode(square_image(["red"]))

KINDS = {7_000: ("rgba of 16 bits",), 9_000: ("animation", "cmyk")}
"""One that fits and two that do not; `make trust` tries all."""


def test_images_of_a_worker_keep_to_its_budget_and_the_others_live(tmp_path):
    """Those of 49 million pixels fit, one at a time."""
    bombs = {f"{kind} {side}": BOMBS[kind](side) for side, kinds in KINDS.items() for kind in kinds}
    contents = [("a.png", GOOD), *((f"{name}.png", data) for name, data in bombs.items()), ("z.png", GOOD)]
    source = str(write_tar(tmp_path / "a.tar", contents))
    ran = run_limited("hostile_runs:ingest_and_tag", str(tmp_path / "run"), source, {}, {}, room=GIB * 5 // 4)
    assert ran["peak"] < GIB
    found = ran["result"]
    assert all(reason == "image_too_large" for _, _, reason, _ in found["ingest"]["dead"])
    assert all("(max_image_bytes)" in detail for *_, detail in found["ingest"]["dead"])
    assert {key for key, *_ in found["ingest"]["dead"]} == {f"squares/{kind} 9000" for kind in KINDS[9_000]}
    assert found["tag"]["dead"] == []


def test_an_image_that_there_is_no_memory_for_dies_alone(tmp_path):
    """The header keeps to the limits, but the machine has less."""
    contents = [("a.png", GOOD), *((f"{n}.png", flat_png(8_000, 8, 6)) for n in range(3)), ("z.png", GOOD)]
    source = str(write_tar(tmp_path / "a.tar", contents))
    ran = run_limited("hostile_runs:ingest_and_tag", str(tmp_path / "run"), source, {}, {}, room=GIB // 5)
    found = ran["result"]
    assert found["ingest"]["rows"] == found["tag"]["rows"] == [0, 4]
    assert {(unit, reason) for _, unit, reason, _ in found["ingest"]["dead"]} == {
        ("example", "image_too_large")
    }


def test_the_limit_is_the_users(tmp_path):
    contents = [("a.png", GOOD), ("b.png", flat_png(300, 8, 6))]
    limits = IngestConfig(max_image_bytes=8 * 300 * 300 - 1)
    bench = Bench(tmp_path / "run")
    bench.ingest(write_tar(tmp_path / "a.tar", contents), limits)
    assert [row["key"] for row in rows(bench)] == ["squares/a"]
    (letter,) = bench.dead("ingest")
    assert letter["reason"] == "image_too_large"
    said = "300 x 300 pixels take 720000 bytes to decode; the limit is 719999 (max_image_bytes)"
    assert letter["detail"] == said
