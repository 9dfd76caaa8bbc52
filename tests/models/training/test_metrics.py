import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tagmill.models.training import benchmarks, metrics
from tagmill.models.training.scores import BLOCK, POSITIVE, UNKNOWN, ScoreWriter

GOLDEN = Path(__file__).parents[2] / "golden" / "metrics"
TIED = {"random": [], "edge": [6, 9]}
"""Classes of the reference data with equal scores, whose official AP is a matter of chance."""


def stored(folder, scores, labels, batch=7):
    writer = ScoreWriter(folder, scores.shape[1])
    for start in range(0, len(scores), batch):
        part = slice(start, start + batch)
        keys = [str(row) for row in range(len(scores))[part]]
        writer.add(keys, scores[part].astype(np.float32), labels[part].astype(np.uint8))
    return writer.close()


def reference(case):
    return load_file(GOLDEN / f"{case}.safetensors"), json.loads((GOLDEN / f"{case}.json").read_text())


def measured(folder, scores, labels, thresholds):
    names = [str(tag) for tag in range(scores.shape[1])]
    return metrics.measure(stored(folder, scores, labels), names, thresholds)


@pytest.mark.parametrize("case", ["random", "edge"])
def test_the_official_metrics_are_met(tmp_path, case):
    data, expected = (
        load_file(GOLDEN / f"{case}.safetensors"),
        json.loads((GOLDEN / f"{case}.json").read_text()),
    )
    found = measured(tmp_path, data["scores"], data["targets"], data["thresholds"])
    free = np.setdiff1d(np.arange(30), TIED[case])
    ap = np.array([tag.ap for tag in found.tags])
    assert np.abs(ap - data["APs"])[free].max() < 1e-12
    for name, column in (("precision", "P"), ("recall", "R")):
        values = [getattr(tag, name) for tag in found.tags]
        np.testing.assert_allclose(values, data[column], atol=1e-12)
    summary, usual = found.summary(), expected["not_in_official_repo"]
    assert summary.cp == pytest.approx(expected["CP"], abs=1e-12)
    assert summary.cr == pytest.approx(expected["CR"], abs=1e-12)
    assert (summary.cf1, summary.op, summary.or_, summary.of1) == pytest.approx(
        [usual[name] for name in ("CF1", "OP", "OR", "OF1")], abs=1e-12
    )
    if not TIED[case]:
        assert summary.map == pytest.approx(expected["mAP"], abs=1e-12)


@pytest.mark.parametrize("run", ["default", "threshold_0.5"])
def test_the_official_script_is_met(tmp_path, run):
    data, expected = (
        load_file(GOLDEN / "script.safetensors"),
        json.loads((GOLDEN / "script.json").read_text()),
    )
    thresholds = expected["thresholds"] if run == "default" else [0.5] * 25
    found = measured(tmp_path, data["scores"], data["targets"], thresholds).summary()
    for name, value in (("mAP", found.map), ("CP", found.cp), ("CR", found.cr)):
        assert 100 * value == pytest.approx(expected[run][name], abs=1e-6)


def test_small_cases_of_average_precision():
    for case in json.loads((GOLDEN / "average_precision.json").read_text()):
        ranking = metrics.rank(np.float32(case["scores"]), np.uint8(case["targets"]))
        assert ranking.average_precision() == pytest.approx(case["ap"], abs=1e-12)


def test_the_official_lists_give_the_official_targets():
    targets = load_file(GOLDEN / "random.safetensors")["targets"]
    found = benchmarks.read(GOLDEN / "random_annots.txt", GOLDEN / "random_taglist.txt")
    for row, places in zip(targets, found.images.values(), strict=True):
        assert sorted(places) == list(np.flatnonzero(row))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 8))
def test_equal_scores_are_one_group_in_any_order(seed, images, levels):
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, levels, images) / levels).astype(np.float32)
    labels = rng.integers(0, 3, images).astype(np.uint8)
    ranking = metrics.rank(scores, labels)
    order = rng.permutation(images)
    again = metrics.rank(scores[order], labels[order])
    assert ranking.average_precision() == again.average_precision()
    known = labels != UNKNOWN
    assert ranking.positives == (labels == POSITIVE).sum()
    assert ranking.images == known.sum()
    for cut in (0.0, 0.25, 0.5, 1.0):
        right, taken = ranking.at_least([cut])
        assert taken[0] == (known & (scores >= cut)).sum()
        assert right[0] == ((labels == POSITIVE) & (scores >= cut)).sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 8), st.sampled_from([0.1, 0.5, 1]))
def test_scikit_learn_says_the_same(seed, images, levels, share):
    from sklearn.metrics import average_precision_score, precision_recall_curve

    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, levels, images) / levels).astype(np.float32)
    labels = (rng.random(images) < share).astype(np.uint8)
    labels[rng.integers(images)] = 1  # without positives scikit-learn warns, and says 0 as well
    ranking = metrics.rank(scores, labels)
    assert ranking.average_precision() == pytest.approx(average_precision_score(labels, scores), abs=2e-8)
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    np.testing.assert_array_equal(ranking.scores[::-1], thresholds)
    np.testing.assert_array_equal(ranking.precision[::-1], precision[:-1])
    np.testing.assert_allclose(ranking.found[::-1] / ranking.positives, recall[:-1], rtol=1e-15)


def test_average_precision_of_ties_lies_between_the_best_and_the_worst_order():
    scores, labels = np.float32([0.5] * 4 + [0.2]), np.uint8([1, 0, 1, 0, 1])
    best, worst = (1 + 1 + 3 / 5) / 3, (1 / 3 + 2 / 4 + 3 / 5) / 3
    assert worst < metrics.rank(scores, labels).average_precision() < best


def test_a_curve_gives_thresholds_that_do_what_it_says():
    rng = np.random.default_rng(0)
    scores, labels = rng.random(500).astype(np.float32), (rng.random(500) < 0.2).astype(np.uint8)
    ranking = metrics.rank(scores, labels)
    precision, threshold = ranking.curve()
    for recall, said, cut in zip(metrics.RECALLS, precision, threshold, strict=True):
        right, taken = (int(count[0]) for count in ranking.at_least([cut]))
        assert right / ranking.positives >= recall - 1e-9
        assert right / taken == pytest.approx(said, abs=1e-6)


def test_unknown_labels_count_for_nothing(tmp_path):
    scores, labels = np.float32([[0.9], [0.8], [0.1]]), np.uint8([[1], [2], [0]])
    (tag,) = measured(tmp_path, scores, labels, [0.5]).tags
    assert (tag.images, tag.positives, tag.predicted, tag.right) == (2, 1, 1, 1)
    nothing = measured(tmp_path, scores, np.full((3, 1), UNKNOWN), [0.5])
    assert nothing.summary().tags == 0
    assert nothing.tags[0].ap == 0


@pytest.mark.parametrize("images", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
@pytest.mark.parametrize("budget", [1, 10_000, 1 << 30])
def test_a_store_gives_back_what_was_put_in(tmp_path, images, budget):
    rng = np.random.default_rng(images)
    scores, labels = rng.random((images, 5)).astype(np.float32), rng.integers(0, 3, (images, 5))
    store = stored(tmp_path, scores, labels, batch=100)
    found = list(store.columns(budget))
    np.testing.assert_array_equal(np.concatenate([part.scores for part in found]).T, scores)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in found]).T, labels)
    assert [part.start for part in found] == sorted({part.start for part in found})
    assert store.keys == tuple(map(str, range(images)))
    store.remove()
    assert not tmp_path.exists()


def test_pooled_counts_are_those_of_all_decisions(tmp_path):
    rng = np.random.default_rng(3)
    scores, labels = rng.random((90, 4)).astype(np.float32), rng.integers(0, 2, (90, 4))
    found = measured(tmp_path, scores, labels, [0.5] * 4)
    half = len(metrics.CUTS) // 2
    assert found.taken[half] == (scores >= 0.5).sum()
    assert found.found[half] == labels[scores >= 0.5].sum()
    recall, precision = found.micro_curve()
    assert recall[0] == 1
    assert precision[0] == pytest.approx(labels.mean())
    assert found.macro_curve().shape == metrics.RECALLS.shape


def test_scores_that_are_no_numbers_are_refused(tmp_path):
    writer = ScoreWriter(tmp_path, 1)
    with pytest.raises(FloatingPointError, match="NaN"):
        writer.add(["a"], np.float32([[np.nan]]), np.uint8([[0]]))
    with pytest.raises(ValueError, match="1 x 1 scores"):
        writer.add(["a"], np.float32([[0, 1]]), np.uint8([[0, 1]]))


def test_memory_stays_within_the_budget(tmp_path):
    scores = np.zeros((4000, 500), np.float32)
    store = stored(tmp_path, scores, scores, batch=1000)
    tracemalloc.start()
    for _ in metrics.rankings(store, 1 << 20):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
