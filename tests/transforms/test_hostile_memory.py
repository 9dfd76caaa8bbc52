"""Images that are small on disk and huge in memory: they die of their header, and the others live."""

from PIL import Image

from hostile import PALETTE, animated_webp, flat_png
from limited import run_limited
from odd_images import saved
from sources import encode, square_image, write_tar

GIB = 1 << 30
GOOD = encode(square_image(["red"]))
SMALL_WEBP = saved(Image.new("RGBA", (16, 16), (255, 0, 0, 255)), "WEBP", lossless=True)


def flat(side, format_, mode="RGB", **options):
    return saved(Image.new(mode, (side, side), (9, 8, 200, 30)[: len(mode)]), format_, **options)


BOMBS = {
    "animation": lambda side: animated_webp(side, SMALL_WEBP),
    "palette": lambda side: flat_png(side, 8, 3, PALETTE),
    "rgba of 16 bits": lambda side: flat_png(side, 16, 6),
    "grey of 16 bits": lambda side: flat_png(side, 16, 0),
    "progressive": lambda side: flat(side, "JPEG", progressive=True, subsampling=0),
    "cmyk": lambda side: flat(side, "JPEG", "CMYK", progressive=True),
    "lossless webp": lambda side: flat(side, "WEBP", "RGBA", lossless=True, method=0, quality=0),
}


def test_images_of_a_worker_keep_to_its_budget_and_the_others_live(tmp_path):
    """Those of 49 million pixels fit, one at a time; of those of 100 million some do."""
    bombs = {f"{kind} {side}": bomb(side) for side in (7_000, 9_000) for kind, bomb in BOMBS.items()}
    contents = [("a.png", GOOD), *((f"{name}.png", data) for name, data in bombs.items()), ("z.png", GOOD)]
    source = str(write_tar(tmp_path / "a.tar", contents))
    ran = run_limited("hostile_runs:ingest_and_tag", str(tmp_path / "run"), source, {}, {}, room=GIB * 5 // 4)
    assert ran["peak"] < GIB
    found = ran["result"]
    assert all(reason == "image_too_large" for _, _, reason, _ in found["ingest"]["dead"])
    assert all("(max_image_bytes)" in detail for *_, detail in found["ingest"]["dead"])
    assert {key for key, *_ in found["ingest"]["dead"]} == {
        f"squares/{kind} 9000" for kind in ("animation", "progressive", "cmyk", "lossless webp")
    }
    assert found["tag"]["dead"] == []


def test_an_image_that_there_is_no_memory_for_dies_alone(tmp_path):
    """The header keeps to the limits, but the machine has less."""
    contents = [("a.png", GOOD), *((f"{n}.png", flat_png(8_000, 8, 6)) for n in range(5)), ("z.png", GOOD)]
    source = str(write_tar(tmp_path / "a.tar", contents))
    ran = run_limited("hostile_runs:ingest_and_tag", str(tmp_path / "run"), source, {}, {}, room=GIB // 5)
    found = ran["result"]
    assert found["ingest"]["rows"] == found["tag"]["rows"] == [0, 6]
    assert {(unit, reason) for _, unit, reason, _ in found["ingest"]["dead"]} == {
        ("example", "image_too_large")
    }


def test_the_limit_is_the_users(tmp_path):
    contents = [("a.png", GOOD), ("b.png", flat_png(300, 8, 6))]
    source = str(write_tar(tmp_path / "a.tar", contents))
    limits = {"max_image_bytes": 8 * 300 * 300 - 1}
    found = run_limited("hostile_runs:ingest_and_tag", str(tmp_path / "run"), source, {}, limits)["result"]
    assert found["tag"]["rows"] == [0]
    ((_, _, reason, detail),) = found["ingest"]["dead"]
    assert reason == "image_too_large"
    assert detail == "300 x 300 pixels take 720000 bytes to decode; the limit is 719999 (max_image_bytes)"
