"""Near-duplicates: pictures that look the same, in all inputs and splits."""

import io
import itertools
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from runs import current_record, damaged, drive, rows_of, stage_files
from sources import write_config, write_tar
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import find_example
from tagmill.pipeline.study.near_report import NearCounts, near_counts
from tagmill.runners.commands.demo import embedded
from tagmill.runners.commands.example_view import show_example
from tagmill.runners.commands.inspection import show_status
from tagmill.runners.commands.terminal import Terminal
from tagmill.transforms.near_duplicates import HASHED, PAIR, collapse, near_pairs, settle
from turned import saved


def settled(hashes, distance):
    """What becomes of hashes in their order, by the job's steps: {loser: (winner, distance)}."""
    entries = np.array([(value, place) for place, value in enumerate(hashes)], HASHED)
    distinct, copies = collapse(entries[::-1])
    pairs = [near_pairs(distinct, distance, number) for number in range(distance + 1)]
    return {loser: (winner, far) for loser, winner, far in settle(np.concatenate([copies, *pairs]))}


def one_by_one(hashes, distance):
    """The same by its meaning: each against all that stay, in order; equal ones go as their first did."""
    stays, first, lost = [], {}, {}
    for place, value in enumerate(hashes):
        if value in first:
            lost[place] = lost.get(first[value], (first[value], 0))
            continue
        first[value] = place
        near = ((other, (hashes[other] ^ value).bit_count()) for other in stays)
        found = next(((other, far) for other, far in near if far <= distance), None)
        if found:
            lost[place] = found
        else:
            stays.append(place)
    return lost


def drawn(count, bits, seed=0):
    """Hashes of which only so many bits, spread over all, are not equal, shuffled, and some of them twice."""
    draw = np.random.default_rng(seed)
    places = draw.choice(64, bits, replace=False)
    numbers = draw.integers(0, (1 << bits) - 1, count, np.uint64, endpoint=True)
    values = [
        sum(1 << int(place) for n, place in enumerate(places) if int(number) >> n & 1) for number in numbers
    ]
    return [value ^ 0x0F1E2D3C4B5A6978 for value in values]


@pytest.mark.parametrize(("bits", "distance"), [(64, 4), (24, 4), (16, 2), (14, 1), (12, 0)])
def test_an_example_goes_to_the_first_that_stays_and_lies_near_it(bits, distance):
    hashes = drawn(2500, bits)
    for n in range(0, 2000, 7):  # near ones, of which few would come up in 64 bits
        hashes[n + 300] = hashes[n] ^ (1 << n % 64) ^ (1 << (5 * n + 1) % 64)
    assert settled(hashes, distance) == one_by_one(hashes, distance)


def test_of_thousands_that_are_all_near_each_other_later_ones_change_nothing():
    hashes = drawn(4000, 12)
    found = settled(hashes, 6)
    assert len(found) > 3900
    assert not {winner for winner, _ in found.values()} & found.keys()
    assert all((hashes[a] ^ hashes[b]).bit_count() == far <= 6 for a, (b, far) in found.items())
    assert settled(hashes[:1000], 6) == {loser: won for loser, won in found.items() if loser < 1000}


def test_small_steps_lead_from_no_picture_to_another_one():
    assert settled([0, 0b111, 0b111111, 0b111], 3) == {1: (0, 3), 3: (0, 3)}


def test_blank_images_are_as_many_pairs_and_no_more():
    blank = np.array([(1 << 63, place) for place in range(5000)], HASHED)
    distinct, copies = collapse(blank)
    assert (len(distinct), len(copies), copies.nbytes) == (1, 4999, 4999 * PAIR.itemsize)
    assert len(near_pairs(distinct, 4, 0)) == 0


@pytest.fixture
def config(tmp_path):
    """Three of an own test set, and six of the web: three are theirs, one of them larger and one the same
    file; two others are one picture.
    """
    with tarfile.open(embedded() / "scenes-000000.tar") as archive:
        jpegs = (archive.extractfile(member).read() for member in archive if member.name.endswith(".jpg"))
        scenes = [Image.open(io.BytesIO(jpeg)).convert("RGB") for jpeg in itertools.islice(jpegs, 6)]
    large = [scene.resize((scene.width * 2, scene.height * 2)) for scene in scenes]
    gold = [(f"g{n}.png", saved(scene, "PNG")) for n, scene in enumerate(scenes[:3])]
    web = [
        ("w0.jpg", saved(large[0], "JPEG", quality=60)),
        ("w1.png", gold[1][1]),
        ("w2.png", saved(scenes[3], "PNG")),
        ("w3.jpg", saved(scenes[3], "JPEG", quality=50)),
        ("w4.png", saved(scenes[4], "PNG")),
        ("w5.jpg", saved(scenes[2], "JPEG", quality=50)),
        ("w6.png", gold[1][1]),
    ]
    more = [("m0.jpg", saved(scenes[4], "JPEG", quality=70)), ("m1.png", saved(scenes[5], "PNG"))]
    for name, contents in {"gold": gold, "web": web, "more": more}.items():
        write_tar(tmp_path / "data" / f"{name}.tar", contents)
    return write_config(tmp_path, inputs=inputs(tmp_path, gold="test", web="train"))


def inputs(folder, **splits):
    return [
        {"name": name, "format": "webdataset", "path": str(folder / "data" / f"{name}.tar"), "split": split}
        for name, split in splits.items()
    ]


def duplicates(config, *overrides):
    """Run up to the stage; its rows as (key, reason, key of the winner)."""
    drive(config, *overrides, until="duplicates")
    run = config.parent / "run"
    keys = {(row["part"], row["row"]): row["key"] for row in rows_of(run, "ingest")}
    found = rows_of(run, "duplicates")
    assert all(row["distance"] <= 4 for row in found if row["reason"] == "near_duplicate")
    return [(row["key"], row["reason"], keys[row["winner_part"], row["winner_row"]]) for row in found]


def test_a_run_drops_and_reports_near_duplicates_in_all_inputs_and_splits(config, capsys):
    run = config.parent / "run"
    same = [("web/w6", "same_image", "web/w1")]
    assert duplicates(config) == same
    assert (near_counts(RunFolder(str(run))), "distance" in rows_of(run, "duplicates")[0]) == (None, False)
    without = stage_files(run)

    near = [
        ("web/w0", "near_duplicate", "gold/g0"),
        ("web/w1", "near_duplicate", "gold/g1"),
        ("web/w3", "near_duplicate", "web/w2"),
        ("web/w5", "near_duplicate", "gold/g2"),
    ]
    assert duplicates(config, "duplicates.near={}") == near + same
    assert current_record(run, "duplicates").count("example", "dropped") == 5
    expected = NearCounts(clusters=4, members=8, leaks=3, leaked=3, larger=1)
    assert near_counts(RunFolder(str(run))) == expected
    assert damaged(run) == []
    show_status(Terminal(), str(run))
    show_status(Terminal(), str(run), as_json=True)
    show_example(Terminal(), RunFolder(str(run)), "web/w0", None)
    lines = capsys.readouterr().out.splitlines()
    assert expected.said() in " ".join(lines)
    (said,) = (json.loads(line) for line in lines if line.startswith("{"))
    assert said["near_duplicates"] == vars(expected)
    assert "dropped: gold/g0 looks the same" in lines

    assert duplicates(config, "duplicates.near.keep=all") == near + same
    assert current_record(run, "duplicates").count("example", "dropped") == 1
    assert near_counts(RunFolder(str(run))) == expected
    assert find_example(RunFolder(str(run)), "web/w0").duplicate_of is None

    # As it was before, file for file, and no table of another config is left in the report.
    assert duplicates(config) == same
    assert without.items() <= stage_files(run).items()
    assert near_counts(RunFolder(str(run))) is None
    assert damaged(run) == []


def test_a_later_input_loses_to_what_is_there_and_changes_nothing_of_it(config):
    before = duplicates(config, "duplicates.near={}")
    values = json.loads(config.read_text())
    values["inputs"] = inputs(config.parent, more="val", gold="test", web="train")
    config.write_text(json.dumps(values))
    first, *rest = sorted(duplicates(config, "duplicates.near={}"))
    assert first == ("more/m0", "near_duplicate", "web/w4")
    assert rest == sorted(before)
    assert near_counts(RunFolder(str(config.parent / "run"))).leaks == 4
