import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from pydantic import BaseModel

from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.stages import STAGES
from tagmill.pipeline.study.history import HISTORY_SCHEMA
from tagmill.pipeline.study.labels import LABELS_SCHEMA
from tagmill.pipeline.study.near_report import NEAR_CLUSTERS_SCHEMA
from tagmill.pipeline.study.report import STAGES_SCHEMA, TAGS_SCHEMA
from tagmill.tag_system.core.config import parse_yaml
from tagmill.tag_system.shard_contract import Manifest, Sample, SampleEvidence, SampleTag
from tagmill.transforms import parts
from tagmill.transforms.formats.base import InputConfig

DOCUMENT = Path(__file__).parents[1] / "docs" / "tables.md"

SCHEMAS: dict[str, pa.Schema] = {
    **{stage.name: stage.schema for stage in STAGES},
    "dead": parts.DEAD_SCHEMA,
    "report/stages": STAGES_SCHEMA,
    "report/tags": TAGS_SCHEMA,
    "report/labels": LABELS_SCHEMA,
    "report/near_duplicates": NEAR_CLUSTERS_SCHEMA,
    "report/history": HISTORY_SCHEMA,
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


def test_every_field_of_a_sample_and_of_the_manifest_is_documented():
    parts = DOCUMENT.with_name("shards.md").read_text().split("\n## ")
    found = {part.split("\n")[0]: re.findall(r"^\| ([a-z_0-9, ]+) \| ", part, re.MULTILINE) for part in parts}
    for title, models in {
        "The sample": (Sample,),
        "A decision": (SampleTag, SampleEvidence),
        "The manifest": (Manifest,),
    }.items():
        names = {name for row in found[title] for name in row.split(", ")} - {"field"}
        assert names == {name for model in models for name in model.model_fields} - {"model"}


CONFIG = DOCUMENT.with_name("config.md")


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a config, with its default as YAML has it; empty for a key that must be there."""
    for name, field in model.model_fields.items():
        section = next((a for a in _models(field.annotation)), None)
        if section:
            yield from keys(section, f"{prefix}{name}.")
        else:
            default = "" if field.is_required() else field.get_default(call_default_factory=True)
            text = default if isinstance(default, str) else json.dumps(default).replace('"', "")
            yield prefix + name, text


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def test_every_key_of_a_config_is_documented_with_its_default():
    rows = re.findall(r"^\| ([a-z_., ]+) \| (.*?) ?\| .+ \|$", CONFIG.read_text(), re.MULTILINE)
    found = [(key, default) for names, default in rows for key in names.split(", ") if names != "key"]
    assert sorted(found) == sorted(keys(RunConfig))


def test_every_input_that_is_there_to_be_copied_can_be_one():
    blocks = re.findall(r"```yaml\n(inputs:.*?)```", DOCUMENT.with_name("inputs.md").read_text(), re.DOTALL)
    found = [InputConfig.model_validate(one) for block in blocks for one in parse_yaml(block)["inputs"]]
    assert {one.format for one in found} >= {"jsonl", "json", "csv", "coco", "ram", "folder", "webdataset"}
