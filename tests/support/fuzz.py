"""Throws bytes at every reader of files that come from anywhere, led by coverage: see docs/trust.md.

python tests/support/fuzz.py FOLDER SECONDS [TARGET ...]

The library atheris leads the way; it is in no extra, for it has wheels of few versions of Python. Without it,
`TARGETS` still say what may be thrown, and what may come back. What a reader did that it must not do lies in
FOLDER/found, an input and a traceback each; inputs that led further are kept in FOLDER, for the next time.
"""

import hashlib
import io
import json
import random
import struct
import sys
import tempfile
import traceback
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import hostile_inputs
from sources import encode, square_image

MOST_BYTES = 16 << 10
"""How long an input becomes."""

MEMORY, SECONDS = 2_000, 20
"""Megabytes that the process may take, and seconds that one input may."""

Call = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A reader: inputs to begin with, and what to call with one; it may raise the project's own errors."""

    seeds: list[bytes]
    call: Call


def tar(folder: Path) -> Target:
    """A webdataset, member by member; the sums of its headers are made to hold."""
    from tagmill.transforms.formats.base import InputConfig, Limits
    from tagmill.transforms.formats.webdataset import Webdataset

    config = InputConfig(name="x", format="webdataset", path="unused", labels="truth")
    read = _reader(Webdataset(), config, Limits(1 << 20, 1 << 16), folder / "it.tar")
    seeds = [one.tar for one in hostile_inputs.inputs() if one.name.startswith(("tar", "record"))]
    return Target([seed for seed in seeds if len(seed) <= MOST_BYTES], lambda data: read(with_tar_sums(data)))


def lines(folder: Path) -> Target:
    """JSON lines beside an image, whose captions, labels and other fields are checked as ingest does."""
    from tagmill.transforms.formats.base import InputConfig, Limits
    from tagmill.transforms.formats.jsonl import JsonLines

    (folder / "a.png").write_bytes(encode(square_image(["red"])))
    config = InputConfig(name="x", format="jsonl", path="unused")
    read = _reader(JsonLines(), config, Limits(1 << 20, 1 << 16), folder / "it.jsonl")
    fields = {
        "image": "a.png",
        "key": "k",
        "captions": ["a red square", ""],
        "labels": [{"name": "red", "box": [0, 1.5, 2, 3]}, {"tag": "x", "bbox": [1, 2, 3, 4]}, "blue"],
        "split": "train2017",
        "width": 96,
    }
    records = [text.replace(b"\n", b" ") for name, text in hostile_inputs._records() if len(text) < 2_000]
    seeds = [record.replace(b"{", b'{"image": "a.png", ', 1) + b"\n" for record in records]
    return Target([json.dumps(fields).encode(), *seeds, b"\n\n".join(seeds[:5])], read)


def _reader(format_, config, limits, path: Path) -> Call:
    from tagmill.tag_system.core.errors import DataError
    from tagmill.transforms.formats.base import Source
    from tagmill.transforms.formats.streams import HashingStream
    from tagmill.transforms.given import Caps, given

    source = Source(str(path.parent), path.name, str(path.parent))
    caps = Caps(100, 2_000, 100, 1 << 16)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with path.open("rb") as raw:
            for example in format_.read(HashingStream(raw), source, config, limits):
                try:
                    found = given(example.load(), config, caps)
                except DataError:
                    continue
                json.dumps([found.captions, found.labels, found.meta]).encode()

    return read


def image(folder: Path) -> Target:
    """An image, to its last pixel; the sums of a PNG's chunks are made to hold."""
    from tagmill.transforms import images

    seeds = [data for _, data, _ in hostile_inputs._images() if len(data) <= MOST_BYTES]

    def read(data: bytes) -> None:
        images.inspect(with_png_sums(data), 1 << 20, 64 << 20)
        images.decode(with_png_sums(data), 1 << 20, 64 << 20)

    return Target(seeds, read)


def manifest(folder: Path) -> Target:
    """The manifest of a dataset, and the sample of a shard."""
    from tagmill.tag_system import shard_contract as contract

    shard = {"name": "train-000000", "split": "train", "examples": 1, "bytes": 512, "sha256": "0" * 64}
    values = {"layout": 2, "vocabulary": "0" * 64, "tags": 1, "examples": {"train": 1}, "shards": [shard]}
    more = {"models": {"m": {"stage": "tag", "name": None, "fingerprint": "f"}}, "made_by": {"a": [1, {}]}}
    seeds = [json.dumps(values | more).encode(), json.dumps(_sample()).encode()]

    def read(data: bytes) -> None:
        for parse in (lambda: contract.parse_manifest(data, "folder"), lambda: contract.parse_sample(data)):
            _allowed(parse)

    return Target(seeds, read)


def _sample() -> dict[str, object]:
    evidence = {"model": "m", "score": 0.5, "boxes": [[0, 0, 1, 1, 0.5]], "distance_rank": 1.0}
    tag = {"tag": "red", "kind": "object", "verdict": "kept", "rule": "r", "basis": "given"}
    mention = {"tag": "red", "kind": "object", "start": 0, "end": 3}
    return {
        "layout": 2,
        "key": "x/k",
        "width": 1,
        "height": 1,
        "format": "PNG",
        "sha256": "0" * 64,
        "split": "train",
        "captions": [{"text": "red", "source": "given", "mentions": [mention]}],
        "tags": [{**tag, "sources": {"given": 1}, "evidence": [evidence]}],
        "labels": [{"name": "red", "box": [0, 0, 1, 1]}],
        "absent": ["blue"],
        "meta": "{}",
    }


def index(folder: Path) -> Target:
    """The index beside a shard, as a trainer opens a dataset."""
    import pyarrow as pa

    from tagmill.models.training import datasets
    from tagmill.tag_system import shard_contract as contract
    from tagmill.tag_system.shard_contract import ManifestShard

    shard = ManifestShard(name="train-000000", split="train", examples=1, bytes=4096, sha256="")
    rows = [
        {"key": "k", "member": f"k.{extension}", "offset": 512 + 1024 * place, "size": 100}
        for place, extension in enumerate(("png", "json"))
    ]
    strange = [
        contract.INDEX_SCHEMA.field("member"),
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
    ]
    tables = [
        pa.Table.from_pylist(rows, contract.INDEX_SCHEMA),
        pa.Table.from_pylist([{**row, "size": None} for row in rows], pa.schema(strange)),
        pa.Table.from_pylist([{**row, "offset": -1} for row in rows], contract.INDEX_SCHEMA),
        pa.table({"member": [1, 2], "offset": ["a", "b"], "size": [1.5, 2.5]}),
        pa.table({"member": [["k.png"], ["k.json"]], "offset": [0, 1], "size": [0, 1]}),
        pa.table({"other": [1]}),
    ]
    path = folder / "train-000000.index.parquet"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        places = datasets.read_index(str(folder), shard)
        for what in ("image", "record"):
            assert (places[what] >= 0).all(), places
            assert (places[what] + places[f"{what}_size"] <= shard.bytes).all(), places

    return Target([_parquet(table) for table in tables], read)


def features(folder: Path) -> Target:
    """What lies beside features and says of which shard they are."""
    import pyarrow as pa

    from tagmill.models.training import datasets
    from tagmill.tag_system.shard_contract import ManifestShard

    shard = ManifestShard(name="train-000000", split="train", examples=1, bytes=0, sha256="s")
    notes = {"shard": "s", "sha256": "t", "dimension": 4, "model": "m"}
    headers = [{"notes": notes}, {"notes": {**notes, "dimension": -4}}, {"notes": None}, [], {}]
    tables = [pa.table({"row": [0]}).replace_schema_metadata({"tagmill": json.dumps(h)}) for h in headers]
    path = folder / "train-000000.parquet"
    (folder / "train-000000.npy").write_bytes(bytes(200))

    def read(data: bytes) -> None:
        path.write_bytes(data)
        found = datasets._open_features(str(folder), [shard])
        assert found.dimension > 0, found
        assert min(found.starts) > 0, found

    return Target([_parquet(table) for table in tables], read)


def part(folder: Path) -> Target:
    """A part of a stage: its header, and its rows."""
    import pyarrow as pa

    from tagmill.pipeline.accounts import read_footers
    from tagmill.transforms import parts

    output = parts.Output(pa.table({"row": pa.array([0, 1], pa.int32()), "tag": ["a", "b"]}), 2)
    parts.commit(str(folder), parts.MadeBy("s", 1, "p", "f", {}, {}), output, range(2))
    seed = (folder / "p.parquet").read_bytes()
    path = folder / "it.parquet"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        _allowed(lambda: read_footers(str(folder), ["it"]))
        _allowed(lambda: parts.read_part(str(path)))

    return Target([seed, seed.replace(b"tag", b"t\x94g")], read)


def record(folder: Path) -> Target:
    """The record of a stage; its digest is made to hold."""
    from tagmill.pipeline import records
    from tagmill.tag_system.core import notes

    made = records.StageRecord("tag", "parts", 1, "g", {}, more={"sources": [{"name": "a"}]})
    records.write_record(str(folder), 1, made)
    path = next(Path(made.rows).parent.glob("*.json"))
    seed = b"{" + path.read_bytes().split(b", ", 1)[1]

    def read(data: bytes) -> None:
        sealed = notes.seal_text("{" + data.decode("utf-8", "replace").removeprefix("{"))
        path.write_bytes(sealed)
        records.parse_record(notes.read(str(path), "stage"), str(folder), str(path))

    return Target([seed], read)


def pickled(folder: Path) -> Target:
    """The pickle within a published checkpoint, whose archive is whole."""
    import torch

    names = ("visual_encoder.norm.bias", "fc.bias", "label_embed")
    content = {"model": {name: torch.arange(4.0) for name in names}, "epoch": 3, "config": {"a": [1, "b"]}}
    sink = io.BytesIO()
    torch.save(content, sink)
    with zipfile.ZipFile(sink) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    (place,) = (name for name in held if name.endswith("data.pkl"))
    path = folder / "it.pth"
    from tagmill.models.ram import checkpoints

    def read(data: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, kept in held.items():
                archive.writestr(name, data if name == place else kept)
        checkpoints.translate(checkpoints.read(path))

    return Target([held[place]], read)


def checkpoint(folder: Path) -> Target:
    """A published checkpoint of any age."""
    import torch

    from tagmill.models.ram import checkpoints

    content = {"model": {"fc.bias": torch.arange(4.0), "label_embed": torch.ones(2, 2, dtype=torch.half)}}
    seeds = []
    for is_archive in (True, False):
        sink = io.BytesIO()
        torch.save(content, sink, _use_new_zipfile_serialization=is_archive)
        seeds.append(sink.getvalue())
    path = folder / "it.pth"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        checkpoints.translate(checkpoints.read(path))

    return Target(seeds, read)


def tensors(folder: Path) -> Target:
    """Safetensors: a published checkpoint, the weights of a model, and what a training left."""
    import torch
    from safetensors.torch import save

    from tagmill.models.ram import checkpoints, store
    from tagmill.models.training import checkpoint as training

    path = folder / "it.safetensors"
    name = "00000003"
    last = folder / training.STEPS / name
    last.mkdir(parents=True)
    (last / training.STATE).write_text("{}")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    contents = [
        {"fc.bias": torch.arange(4.0), "fc.weight": torch.ones(2, 3)},
        {"a": torch.ones(0).half()},
        {},
    ]

    def read(data: bytes) -> None:
        for place in (path, last / training.TENSORS, folder / "model" / "model.safetensors"):
            place.write_bytes(data)
        _allowed(lambda: checkpoints.translate(checkpoints.read(path)))
        _allowed(lambda: training.load(folder, name))
        _allowed(lambda: store.count(folder / "model"))

    return Target([save(content, {"said": "x"}) for content in contents], read)


def model(folder: Path) -> Target:
    """The config of a model's folder, and the state of a training."""
    from safetensors.torch import save

    from tagmill.models.ram import config as configs
    from tagmill.models.ram.config import EncoderConfig, RamConfig
    from tagmill.models.training import checkpoint as training

    encoder = EncoderConfig(name="none", width=8)
    whole = RamConfig(encoder=encoder, classes=("a", "b"), image_size=32)
    name = "00000003"
    last = folder / training.STEPS / name
    last.mkdir(parents=True)
    (last / training.TENSORS).write_bytes(save({}))
    tensors = {"bytes": len(save({})), "sha256": hashlib.sha256(save({})).hexdigest()}
    state = json.dumps({"step": 3, "order": [1, 2], training.FILES: {training.TENSORS: tensors}})

    def read(data: bytes) -> None:
        for place in (folder / configs.CONFIG, last / training.STATE):
            place.write_bytes(data)
        _allowed(lambda: configs.read(folder))
        _allowed(lambda: training.load(folder, name))

    return Target([whole.model_dump_json().encode(), state.encode()], read)


TARGETS: dict[str, Callable[[Path], Target]] = {
    made.__name__: made
    for made in (
        tar,
        lines,
        image,
        manifest,
        index,
        features,
        part,
        record,
        pickled,
        checkpoint,
        tensors,
        model,
    )
}


def _allowed(call: Callable[[], object]) -> None:
    """Call a reader; of the project's own errors it may raise any."""
    from tagmill.tag_system.core.errors import ConfigError, DamageError, DataError

    with suppress(ConfigError, DamageError, DataError):
        call()


def meet(target: Target, data: bytes) -> None:
    """Throw bytes at a target. Raises what it must not."""
    _allowed(lambda: target.call(data))


def with_tar_sums(data: bytes) -> bytes:
    """Make the sums of a tar's headers hold."""
    found = bytearray(data)
    for place in range(0, len(found) - 511, 512):
        if found[place + 257 : place + 262] == b"ustar":
            found[place + 148 : place + 156] = b" " * 8
            found[place + 148 : place + 156] = b"%06o\0 " % sum(found[place : place + 512])
    return bytes(found)


def with_png_sums(data: bytes) -> bytes:
    """Make the sums of a PNG's chunks hold."""
    found, place = bytearray(data), 8
    while data.startswith(b"\x89PNG") and place + 12 <= len(found):
        stop = place + 8 + struct.unpack_from(">I", found, place)[0]
        if stop + 4 > len(found):
            break
        struct.pack_into(">I", found, stop, zlib.crc32(found[place + 4 : stop]))
        place = stop + 4
    return bytes(found)


def _parquet(table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def shaken(name: str, count: int, folder: Path) -> list[str]:
    """Throw a target's seeds at it, and `count` of them with some bytes changed; gives what was wrong."""
    target, dice, wrong = TARGETS[name](folder), random.Random(name), []
    changed = [bytearray(dice.choice(target.seeds)) for _ in range(count)]
    for data in changed:
        for _ in range(dice.choice([1, 1, 2, 8])):
            if data:
                data[dice.randrange(len(data))] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)])
        del data[dice.choice([len(data), len(data), dice.randrange(len(data) + 1)]) :]
    for data in (*target.seeds, *map(bytes, changed)):
        try:
            meet(target, data)
        except Exception as error:  # noqa: BLE001  # what it is, somebody will read
            wrong.append(f"{name}: {error!r} of {data[:200]!r}")
    return wrong


def run(name: str, folder: Path, seconds: int) -> None:
    """Fuzz one target; ends this process."""
    import atheris

    found, corpus = folder / "found", folder / name
    for each in (found, corpus):
        each.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["tagmill", "tarfile", "json"]):
        target = TARGETS[name](Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)))
    for seed in target.seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)

    def one(data: bytes) -> None:
        try:
            meet(target, data)
        except Exception as error:  # noqa: BLE001  # what it is, somebody will read
            places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
            mark = hashlib.sha256(repr((type(error), places)).encode()).hexdigest()[:8]
            path = found / f"{name}-{mark}"
            if not path.exists():
                path.write_bytes(data)
                path.with_suffix(".txt").write_text(traceback.format_exc())

    options = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", f"-rss_limit_mb={MEMORY}"]
    options += [
        f"-timeout={SECONDS}",
        f"-artifact_prefix={found}/{name}-",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def main(folder: Path, seconds: int, names: list[str]) -> int:
    """Fuzz targets one after the other, each in a process of its own; returns how much was found."""
    import subprocess

    for name in names or TARGETS:
        command = [sys.executable, __file__, "--one", name, str(folder), str(seconds)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        figures = [line.split()[-1] for line in said.stderr.splitlines() if "number_of_executed" in line]
        sys.stdout.write(f"{name}: {figures[0] if figures else '?'} inputs, exit code {said.returncode}\n")
        (folder / f"{name}.log").write_text(said.stderr)
    found = sorted(path.name for path in (folder / "found").iterdir())
    sys.stdout.writelines(f"FOUND {name}\n" for name in found)
    return len(found)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        run(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        given_folder = Path(sys.argv[1])
        given_folder.mkdir(parents=True, exist_ok=True)
        sys.exit(min(1, main(given_folder, int(sys.argv[2]), sys.argv[3:])))
