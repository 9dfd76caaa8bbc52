from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tagmill.tag_system.builder.counts import PhraseCounts, count, read_captions
from tagmill.tag_system.core.errors import ConfigError


def test_counts_say_each_caption_once_and_skip_names() -> None:
    captions = ["a man holds a small dog"] * 3 + ["Two dogs follow Ben"]
    found = count(captions)
    assert found.noun["dog"] == 2
    assert found.noun["small dog"] == 1
    assert found.verb["hold"] == 1
    assert found.adjective["small"] == 1
    assert found.noun["ben"] == 0
    assert found.of("dog") == 2


def test_counts_round_trip(tmp_path: Path) -> None:
    counts = PhraseCounts()
    counts.noun.update({"dog": 3, "rare": 1, "a\tb": 5})
    path = tmp_path / "counts.tsv"
    path.write_text(counts.dump())
    assert PhraseCounts.load(str(path)).noun == {"dog": 3}
    path.write_text("noun\tdog\tmany\n")
    with pytest.raises(ConfigError, match=r"counts.tsv:1: not a count"):
        PhraseCounts.load(str(path))
    with pytest.raises(ConfigError, match="tagmill vocab count"):
        PhraseCounts.load(str(tmp_path / "none.tsv"))


def test_captions_come_from_any_parquet(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    pq.write_table(pa.table({"text": ["one", None, "two"]}), path)
    assert list(read_captions([str(path)], "text")) == ["one", "two"]
    pq.write_table(pa.table({"several": [["one", "two"], None, ["three"]], "count": [1, 2, 3]}), path)
    assert list(read_captions([str(path)], "several")) == ["one", "two", "three"]
    with pytest.raises(ConfigError, match="column 'count' holds int64, not texts"):
        list(read_captions([str(path)], "count"))
    with pytest.raises(ConfigError, match=r"no column 'caption'"):
        list(read_captions([str(path)], "caption"))
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(ConfigError, match="cannot read the captions"):
        list(read_captions([str(tmp_path / "no.parquet")], "caption"))
