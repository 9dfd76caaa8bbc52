"""Croissant: `croissant.json` beside the tables of `parquet`, which describes these and the shards."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from tagmill.pipeline.study.exports.base import ExportContext
from tagmill.pipeline.study.exports.chosen import ChosenExample
from tagmill.pipeline.study.exports.tables import ParquetExport, TableFile
from tagmill.tag_system.core import files
from tagmill.tag_system.licences import UNKNOWN
from tagmill.transforms.clean import Clean

CONFORMS_TO = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]

_TERMS = (
    *("citeAs", "column", "dataBiases", "dataCollection", "extract", "field", "fileProperty", "fileObject"),
    *("fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path"),
    *(
        "recordSet",
        "references",
        "regex",
        "repeated",
        "replace",
        "separator",
        "source",
        "subField",
        "transform",
    ),
)

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
"""How the words of Croissant are written out, as its specification has them."""

_TYPES = (
    (pa.types.is_boolean, "sc:Boolean"),
    (pa.types.is_integer, "sc:Integer"),
    (pa.types.is_floating, "sc:Float"),
    (pa.types.is_string, "sc:Text"),
)

PROTOCOL = (
    "tagmill: captions are parsed into tags of a vocabulary, a tagger adds tags, a localizer looks for their "
    "regions, and a rule decides on each; its policy is "
)

LIMITS = (
    "The verdicts are those of models and a rule: unless a decision has an entry in `review`, nobody looked "
    "at it. What no caption, label or tagger names is not decided on. Images keep the licences of their "
    "sources."
)


class CroissantExport(ParquetExport):
    """The format `croissant`."""

    def __init__(self, folder: Path, context: ExportContext) -> None:
        super().__init__(folder, context)
        self._licences: set[str] = set()

    def write(self, one: ChosenExample) -> None:
        """Add the rows of an example."""
        super().write(one)
        self._licences.add(one.sample.license or UNKNOWN)

    def close(self) -> None:
        """End the tables, and describe them."""
        super().close()
        text = json.dumps(self._described(), indent=1, ensure_ascii=False)
        (self.folder / "croissant.json").write_text(text + "\n", encoding="utf-8")

    def _described(self) -> dict[str, Any]:
        manifest = self.context.manifest
        tools = [
            f"{key}: {model.name or model.stage}, {model.fingerprint}"
            for key, model in manifest.models.items()
        ]
        stages = manifest.made_by.get("stages", {})
        policy = stages.get(Clean.name, {}).get("config", {}).get("policy", {})
        described = {
            "@context": CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": CONFORMS_TO,
            "name": "image-tag-dataset",
            "description": "Images with tags, and the decision on each tag with its verdict and reason.",
            "datePublished": str(self.context.date),
            "rai:dataAnnotationProtocol": PROTOCOL + json.dumps(policy, sort_keys=True),
            "rai:dataAnnotationPlatform": "tagmill",
            "rai:machineAnnotationTools": tools,
            "rai:dataLimitations": LIMITS,
            "distribution": [*self._tables(), *self._shards()],
            "recordSet": [_records(name, table) for name, table in self.tables.items()],
        }
        return described | {"license": sorted(self._licences)}

    def _tables(self) -> list[dict[str, Any]]:
        """Describe the files of the tables."""
        found = []
        for name in self.tables:
            path = self.folder / f"{name}.parquet"
            one = _file(
                path.name, path.name, "application/x-parquet", files.sha256(str(path)), path.stat().st_size
            )
            found.append(one)
        return found

    def _shards(self) -> list[dict[str, Any]]:
        """Describe the shards in which the images lie, relative to the destination if both are local."""
        folder = self.context.folder
        if files.is_local(folder):
            folder = os.path.relpath(files.filesystem(folder)[1], self.context.destination)
        return [
            _file(
                f"{s.name}.tar", files.join(folder, f"{s.name}.tar"), "application/x-tar", s.sha256, s.bytes
            )
            for s in self.context.manifest.shards
            if s.split in self.options.splits
        ]


def _file(name: str, url: str, encoding: str, sha256: str, size: int) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": url,
        "contentSize": f"{size} B",
        "encodingFormat": encoding,
        "sha256": sha256,
    }


def _records(name: str, table: TableFile) -> dict[str, Any]:
    fields = [_field(name, column) for column in table.schema]
    described = {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}
    return described | ({"key": {"@id": f"{name}/key"}} if name == "examples" else {})


def _field(table: str, column: pa.Field) -> dict[str, Any]:
    is_list = pa.types.is_list(column.type)
    kind = column.type.value_type if is_list else column.type
    (data_type,) = [said for is_of, said in _TYPES if is_of(kind)]
    described = {
        "@type": "cr:Field",
        "@id": f"{table}/{column.name}",
        "name": f"{table}/{column.name}",
        "dataType": data_type,
        "source": {"fileObject": {"@id": f"{table}.parquet"}, "extract": {"column": column.name}},
    }
    return described | ({"repeated": True} if is_list else {})
