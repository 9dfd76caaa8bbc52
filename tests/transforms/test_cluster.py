import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage_runs import Bench, part, shared, write_removed
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms import bitmaps, cluster, embed, parquet, parts
from tagmill.transforms.cluster import (
    Cluster,
    ClusterConfig,
    cutoff,
    fit,
    k_means,
    nearest_distance,
    region_hashes,
)
from tagmill.transforms.stage import BUCKET, named_rows


def vectors(count, seed=0, dimension=8):
    found = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float16).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def embedded(name, tags, seed):
    """A part of embed: a row a region, `tags` by region."""
    records = [
        {"row": row, "tag": tag, "region": row % 3, "embedding": vector.astype(np.float16)}
        for row, (tag, vector) in enumerate(zip(tags, vectors(max(1, len(tags)), seed), strict=False))
    ]
    return part("embed", embed.SCHEMA, records, examples=len(tags))


class Regions(Bench):
    """Parts of embed, written by hand."""

    def __init__(self, folder, found):
        super().__init__(folder)
        self.names = list(found)
        self.roots = dict.fromkeys(found, "")
        for name, made in found.items():
            made_by = parts.MadeBy("embed", 1, name, "f", {}, {})
            parts.commit(self.uri("embed"), made_by, parts.Output(made.table, 1), [0])
        self.stages = [
            embed.Embed(embed.EmbedConfig(model="square_models:SquareEmbedder"), self.shared, None)
        ]

    def table(self, work="work", runner="FnApiRunner", **changes):
        stage = Cluster(ClusterConfig(**changes), self.shared)
        folder = self.beam(stage, runner, str(self.folder / work))
        names = files.list_names(folder)
        buckets = [name for name in names if name.startswith(BUCKET)]
        return stage.merge(parquet.read_table(files.join(folder, name)) for name in buckets), len(buckets)


@pytest.fixture
def regions(tmp_path):
    rng = np.random.default_rng(5)
    found = {}
    for number in range(6):
        tags = rng.choice(["red", "blue", "green", "rare"], 40, p=[0.5, 0.3, 0.19, 0.01]).tolist()
        found[f"p-{number:05d}"] = embedded(f"p-{number:05d}", tags, number)
    found["p-00006"] = embedded("p-00006", [], 6)
    return Regions(tmp_path, found)


def counts(regions):
    found = {}
    for name in regions.names:
        for record in regions.part("embed", name).records:
            found[record["tag"]] = found.get(record["tag"], 0) + 1
    return found


def test_every_tag_has_a_row_with_its_counts(regions):
    table, _ = regions.table(min_regions=5)
    assert table.schema.equals(cluster.SCHEMA)
    rows = {r["tag"]: r for r in table.to_pylist()}
    assert list(rows) == sorted(rows)
    assert {tag: r["regions"] for tag, r in rows.items()} == counts(regions)
    for row in rows.values():
        assert row["sampled"] == row["regions"]
        assert len(row["centroids"]) == row["k"] * row["dimension"]
        assert len(row["distances"]) == (row["sampled"] if row["k"] else 0)
        assert row["distances"] == sorted(row["distances"])
        assert row["spread"] == (pytest.approx(np.mean(row["distances"])) if row["k"] else None)


def test_too_few_regions_are_not_clustered(regions):
    table, _ = regions.table(min_regions=counts(regions)["green"] + 1)
    rows = {r["tag"]: (r["k"], r["spread"]) for r in table.to_pylist()}
    assert rows["green"] == rows["rare"] == (0, None)
    assert rows["red"][0] >= 1


@pytest.mark.parametrize("runner", ["FnApiRunner", "BundleBasedDirectRunner"])
def test_the_table_depends_on_neither_order_nor_buckets_nor_runner(regions, monkeypatch, runner):
    expected, buckets = regions.table(work="first", max_sample=20, min_regions=5)
    assert buckets == 1
    monkeypatch.setattr(cluster, "VECTORS_A_BUCKET", 15)
    regions.names = regions.names[::-1]
    found, buckets = regions.table(work="second", runner=runner, max_sample=20, min_regions=5)
    assert buckets > 1
    assert found.equals(expected)
    assert {r["tag"]: r["sampled"] for r in found.to_pylist()} == {
        tag: min(20, count) for tag, count in counts(regions).items()
    }


def test_regions_of_removed_rows_do_not_count(regions, monkeypatch):
    """Parts are read as if the rows that were taken out since had never been in them."""
    removed = {name: bitmaps.of(range(n, 40, n + 2)) for n, name in enumerate(regions.names)}
    uri = write_removed(str(regions.folder / "removed.parquet"), removed)
    monkeypatch.setattr(regions, "_removed", lambda: uri)
    found, _ = regions.table(work="removed", max_sample=20, min_regions=5)
    left = {}
    for name in regions.names:
        table = regions.part("embed", name).table
        lives = [not removed[name] >> row & 1 for row in table["row"].to_pylist()]
        left[name] = parts.Part(regions.part("embed", name).header, table.filter(pa.array(lives, pa.bool_())))
    without = Regions(regions.folder / "without", left)
    expected, _ = without.table(max_sample=20, min_regions=5)
    assert found.equals(expected)
    assert {r["tag"]: r["regions"] for r in found.to_pylist()} == counts(without) != counts(regions)


def test_no_region_at_all_is_an_empty_table(tmp_path):
    table, buckets = Regions(tmp_path, {"p": embedded("p", [], 0)}).table()
    assert (table.num_rows, table.schema, buckets) == (0, cluster.SCHEMA, 0)


def test_the_sample_is_what_has_the_smallest_hashes(regions):
    table, _ = regions.table(max_sample=20, min_regions=5)
    chosen, found = [], []
    for name in regions.names:
        records = regions.part("embed", name).records
        hashes = region_hashes(
            name,
            [r["tag"] for r in records],
            np.array([r["row"] for r in records], dtype=np.int32),
            np.array([r["region"] for r in records], dtype=np.int32),
        )
        found += [(h, r["embedding"]) for h, r in zip(hashes, records, strict=True) if r["tag"] == "red"]
    chosen = np.array(
        [vector for _, vector in sorted(found, key=lambda pair: pair[0])[:20]], dtype=np.float32
    )
    expected = fit("red", chosen, len(found), ClusterConfig(min_regions=5), 2)
    row = next(r for r in table.to_pylist() if r["tag"] == "red")
    assert row["centroids"] == pytest.approx(expected["centroids"].tolist())
    assert row["spread"] == pytest.approx(expected["spread"])


@given(st.integers(1, 10**8), st.sampled_from([2, 3, 10, 100, 4_096]), st.integers(0, 2**32))
def test_the_cutoff_keeps_enough_and_not_much_more(count, max_sample, seed):
    share = cutoff(count, max_sample) / 2**64
    kept = np.random.default_rng(seed).binomial(count, min(1, share))
    assert kept >= min(count, max_sample)
    assert kept <= 1.2 * max_sample + 20 * np.sqrt(max_sample) + 60


@pytest.mark.parametrize("max_sample", [2, 10, 50])
def test_even_a_small_sample_is_full(tmp_path, max_sample):
    found = {f"p-{n}": embedded(f"p-{n}", [f"tag {i % 10}" for i in range(1_000)], n) for n in range(2)}
    table, _ = Regions(tmp_path, found).table(max_sample=max_sample, min_regions=2)
    assert [r["sampled"] for r in table.to_pylist()] == [max_sample] * 10


def test_hashes_are_even_and_differ_by_part_tag_row_and_region():
    rows, numbers = np.meshgrid(np.arange(1_000, dtype=np.int32), np.arange(10, dtype=np.int32))
    rows, numbers = rows.ravel(), numbers.ravel()
    hashes = np.concatenate(
        [region_hashes(name, [tag] * len(rows), rows, numbers) for name in ("p", "q") for tag in ("a", "b")]
    )
    assert len(np.unique(hashes)) == 40_000
    histogram = np.bincount((hashes >> np.uint64(60)).astype(int), minlength=16)
    assert histogram.min() > 2_200


def test_hashes_never_change():
    found = region_hashes("p", ["a", "b"], np.array([0, 7], np.int32), np.array([0, 3], np.int32))
    text = hashlib.sha256(found.tobytes()).hexdigest()
    assert text == "ee39ec101cf109fce7f4cda0ab6f207d037b87bc4f608f226a267bd2f5663505"


@pytest.mark.parametrize(
    ("count", "changes", "k"),
    [
        (9, {}, 0),
        (10, {}, 1),
        (119, {}, 1),
        (120, {}, 2),
        (300, {}, 5),
        (600, {}, 8),
        (10, {"k": 3}, 3),
        (2, {"k": 3, "min_regions": 2}, 2),
        (40, {"regions_a_centre": 10, "max_k": 3}, 3),
    ],
    ids=str,
)
def test_k_grows_with_the_regions(count, changes, k):
    row = fit("a", vectors(count), count, ClusterConfig(**changes), 1)
    assert row["k"] == k
    assert len(row["centroids"]) == 8 * k


def test_k_means_gives_the_same_centres_every_time():
    sample = vectors(500)
    first = k_means(sample, 6, ClusterConfig(), 1)
    assert np.array_equal(first, k_means(sample.copy(), 6, ClusterConfig(), 1))
    assert not np.array_equal(first, k_means(sample, 6, ClusterConfig(seed=1), 1))


def test_k_means_finds_plain_clusters():
    centres = np.eye(4, dtype=np.float32)
    sample = np.repeat(centres, 30, axis=0) + np.random.default_rng(0).normal(0, 0.01, (120, 4)).astype(
        np.float32
    )
    found = k_means(sample.astype(np.float32), 4, ClusterConfig(), 1)
    assert nearest_distance(centres, found).max() < 0.01


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 100))
def test_a_distance_is_exact_and_does_not_depend_on_its_company(count, k, seed):
    sample, centres = vectors(count, seed, 48), vectors(k, seed + 1, 48)
    together = nearest_distance(sample, centres)
    exact = np.linalg.norm(sample[:, None].astype(np.float64) - centres, axis=2).min(axis=1)
    assert together == pytest.approx(exact, rel=1e-5)
    alone = [nearest_distance(sample[i : i + 1], centres)[0] for i in range(count)]
    assert together.tolist() == alone
    assert nearest_distance(sample, np.concatenate([centres, sample])).tolist() == [0] * count


def test_digests_of_tags_change_with_their_own_row_alone():
    def row(tag, spread):
        return {
            "tag": tag,
            "regions": 1,
            "sampled": 1,
            "dimension": 1,
            "k": 1,
            "centroids": [1.0],
            "spread": spread,
            "distances": [0.0],
        }

    tables = [
        pa.Table.from_pylist([row("a", 1.0), row("b", spread)], cluster.SCHEMA) for spread in (1.0, 2.0)
    ]
    one, other = map(named_rows, tables)
    assert one["a"] == other["a"]
    assert one["b"] != other["b"]


def test_without_faiss_a_run_says_so_before_it_begins(monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'tagmill\[faiss\]'"):
        _ = Cluster(ClusterConfig(), shared()).spec
