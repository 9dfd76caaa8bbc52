"""Croissant: a dataset described for programs, in `croissant.json`."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.licence_table import licence_shares
from tagmill.tag_system.licences import UNKNOWN, licence_link
from tagmill.tag_system.reasons import vouched
from tagmill.transforms import data_card

CONFORMS_TO = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]

_TERMS = (
    *("citeAs", "column", "dataBiases", "dataCollection", "equivalentProperty", "extract", "field"),
    *("fileProperty", "fileObject", "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key"),
    *("md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace"),
    *("samplingRate", "separator", "source", "subField", "transform"),
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

TAR, PARQUET = "application/x-tar", "application/x-parquet"

PROTOCOL = (
    "tagmill: captions and labels are parsed into tags of a vocabulary, the tools named, if any, add tags "
    "and look for their regions, and a rule decides on each tag of an image; its policy is "
)


def shards_croissant(manifest: contract.Manifest, vocabulary: str) -> str:
    """Describe a folder of shards; `vocabulary` is the text of the vocabulary beside them."""
    data = vocabulary.encode()
    words = file_object(
        contract.VOCABULARY,
        contract.VOCABULARY,
        "text/tab-separated-values",
        hashlib.sha256(data).hexdigest(),
        len(data),
    )
    shards = _file_set("shards", "*.tar", TAR, f"the images, and JSON of each; sha256 in {contract.MANIFEST}")
    indexes = _file_set("indexes", "*.index.parquet", PARQUET, "where each member of a shard begins")
    source = {"fileSet": {"@id": "indexes"}}
    members = record_set("members", contract.INDEX_SCHEMA, source)
    shard = {
        "@type": "cr:Field",
        "@id": "members/shard",
        "name": "members/shard",
        "dataType": "sc:Text",
        "source": source
        | {
            "extract": {"fileProperty": "filename"},
            "transform": {"regex": r"^(.+)\.index\.parquet$"},
        },
    }
    members["field"].append(shard)
    return dump(manifest, [shards, indexes, words], [members])


def dump(
    manifest: contract.Manifest,
    distribution: Iterable[Mapping[str, Any]],
    record_sets: Iterable[Mapping[str, Any]],
) -> str:
    """Describe a dataset, whose files are `distribution`, as a text."""
    told = {
        **described(manifest),
        "distribution": list(distribution),
        "recordSet": list(record_sets),
    }
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def described(manifest: contract.Manifest) -> dict[str, Any]:
    """Describe a dataset without its files: what it is, its licences, how it was collected and annotated."""
    licences = [licence_link(name) or name for name in manifest.licenses if name != UNKNOWN]
    tools = [
        f"{key}: {model.name or model.stage}, {model.fingerprint}" for key, model in manifest.models.items()
    ]
    kept = [f"What vouches for the kept tags: {vouched(manifest.kept_by)}."] if manifest.kept_by else []
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": "image-tag-dataset",
        "description": "Images with tags, and the decision on each tag with its verdict and reason.",
        **({"license": licences} if licences else {}),
        **({"datePublished": str(manifest.date)} if manifest.date else {}),
        "rai:dataCollection": data_card.collected(manifest),
        "rai:dataCollectionMissingData": data_card.left_out(manifest),
        "rai:dataAnnotationProtocol": PROTOCOL + data_card.policy_of(manifest),
        "rai:dataAnnotationPlatform": "tagmill",
        "rai:dataAnnotationAnalysis": [data_card.UNCHECKED, *kept],
        "rai:machineAnnotationTools": tools,
        "rai:dataLimitations": [*data_card.LIMITS, licence_shares(manifest.licenses)],
    }


def file_object(name: str, url: str, encoding: str, sha256: str, size: int) -> dict[str, Any]:
    """Describe one file of `size` bytes."""
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": url,
        "contentSize": f"{size} B",
        "encodingFormat": encoding,
        "sha256": sha256,
    }


def _file_set(name: str, includes: str, encoding: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": description,
        "encodingFormat": encoding,
        "includes": includes,
    }


def record_set(name: str, schema: pa.Schema, source: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the rows of Parquet files, which `source` names."""
    fields = [_field(name, column, source) for column in schema]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}


def _field(table: str, column: pa.Field, source: Mapping[str, Any]) -> dict[str, Any]:
    is_list = pa.types.is_list(column.type)
    kind = column.type.value_type if is_list else column.type
    (data_type,) = [said for is_of, said in _TYPES if is_of(kind)]
    described = {
        "@type": "cr:Field",
        "@id": f"{table}/{column.name}",
        "name": f"{table}/{column.name}",
        "dataType": data_type,
        "source": {**source, "extract": {"column": column.name}},
    }
    return described | ({"repeated": True} if is_list else {})
