"""Given labels: each is counted, and has its tag or is told to have none."""

import json

import pyarrow.parquet as pq

from runs import drive, squares_config, tagmill
from sources import encode, square_image, write_tar


def test_every_label_has_its_tag_or_is_told_to_have_none(tmp_path):
    labels = ["diningtable", "Dining Table", "tvmonitor", "tvmonitor", "thingamajig", "red"]
    contents = [("0.png", encode(square_image(["red"]))), ("0.json", json.dumps({"truth": labels}).encode())]
    write_tar(tmp_path / "data" / "a.tar", contents)
    mapped = tmp_path / "labels.csv"
    off = dict.fromkeys(("tag", "localize", "embed", "cluster"))
    config = squares_config(tmp_path, {}, vocabulary=None, **off)

    def table(*overrides):
        drive(config, *overrides)
        found = pq.read_table(tmp_path / "run" / "report" / "labels.parquet").to_pylist()
        return {row["label"]: (row["given"], row["tag"]) for row in found}, found

    counts, rows = table()
    assert counts == {
        "tvmonitor": (2, None),
        "Dining Table": (1, "dining table"),
        "diningtable": (1, "dining table"),
        "red": (1, "red"),
        "thingamajig": (1, None),
    }
    assert rows[0]["nearest"][0] == "computer monitor"
    said = tagmill("run", config).stderr
    assert "3 of 6 given labels (50 %) are not names of tags: tvmonitor 2, thingamajig 1; " in said
    mapped.write_text("# what they call it\ntvmonitor,sofa\nthingamajig,\n")
    counts, _ = table(f"label_map={mapped}")
    assert counts["tvmonitor"] == (2, "couch")
    assert tagmill("run", config, "--set", f"label_map={mapped}").stderr == ""
    for text, problem in [
        ("a,b,c\n", ":1: write a label"),
        ("x,no such tag\n", "not a tag"),
        ("a,red\nA,\n", ":2: A is"),
    ]:
        mapped.write_text(text)
        result = tagmill("plan", config, "--set", f"label_map={mapped}")
        assert (result.returncode, problem in result.stderr) == (2, True)
