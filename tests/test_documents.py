import re
from pathlib import Path

import pyarrow as pa
import pytest

from tagmill.pipeline.report import STAGES_SCHEMA, TAGS_SCHEMA
from tagmill.tag_system.shard_contract import INDEX_SCHEMA
from tagmill.transforms import (
    caption,
    clean,
    cluster,
    duplicates,
    embed,
    features,
    ingest,
    localize,
    parse,
    parts,
    tag,
)

DOCUMENT = Path(__file__).parents[1] / "docs" / "tables.md"

SCHEMAS: dict[str, pa.Schema] = {
    "ingest": ingest.SCHEMA,
    "duplicates": duplicates.SCHEMA,
    "parse": parse.SCHEMA,
    "caption": caption.SCHEMA,
    "tag": tag.SCHEMA,
    "localize": localize.SCHEMA,
    "embed": embed.SCHEMA,
    "cluster": cluster.SCHEMA,
    "clean": clean.SCHEMA,
    "shards": INDEX_SCHEMA,
    "features": features.SCHEMA,
    "dead": parts.DEAD_SCHEMA,
    "report/stages": STAGES_SCHEMA,
    "report/tags": TAGS_SCHEMA,
}

pytestmark = pytest.mark.skipif(not DOCUMENT.exists(), reason="the documents are not beside the tests")


def documented() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for section in DOCUMENT.read_text().split("\n## ")[1:]:
        rows = re.findall(r"^\| (\w+) \| (.+?) \| .+ \|$", section, re.MULTILINE)
        found[section.split("\n")[0]] = [row for row in rows if row[0] != "column"]
    return found


def shown(type_: pa.DataType) -> str:
    return re.sub(r"list<(item|element): ", "list<", str(type_)).replace(
        "map<string, int64 ('", "map<string, int64"
    )


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_is_documented_with_its_type(table: str):
    assert documented()[table] == [(field.name, shown(field.type)) for field in SCHEMAS[table]]


def test_no_table_is_documented_that_is_not_there():
    assert set(documented()) == set(SCHEMAS)
