import numpy as np
import pytest

from tagmill.models.training import calibration, metrics
from tagmill.models.training.calibration import Aim
from tagmill.models.training.scores import ScoreWriter
from tagmill.tag_system.core.errors import ConfigError


def stored(folder, scores, labels):
    writer = ScoreWriter(folder, scores.shape[1])
    writer.add([f"key {row}" for row in range(len(scores))], scores.astype("f4"), labels.astype("u1"))
    return writer.close()


def ranked(scores, labels):
    return metrics.rank(np.float32(scores), np.uint8(labels))


def test_the_best_f1_is_that_of_all_thresholds():
    rng = np.random.default_rng(1)
    for _ in range(30):
        labels = rng.integers(0, 2, 40).astype(np.uint8)
        scores = np.round(rng.random(40) * 0.5 + 0.3 * labels, 2).astype(np.float32)
        chosen = calibration.best(ranked(scores, labels), Aim())

        def f1(cut, scores=scores, labels=labels):
            right = (labels[scores >= cut] == 1).sum()
            return 2 * right / ((scores >= cut).sum() + labels.sum())

        assert f1(chosen) == pytest.approx(max(f1(cut) for cut in np.unique(scores)))


def test_a_precision_is_met_with_the_most_recall():
    ranking = ranked([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 1, 0])
    assert calibration.best(ranking, Aim(precision=0.75)) == pytest.approx(0.55)
    assert calibration.best(ranking, Aim(precision=0.76)) == pytest.approx(0.85)
    assert calibration.best(ranked([0.9, 0.8], [0, 1]), Aim(precision=0.6)) is None


def test_precision_is_not_given_away_for_nothing(tmp_path):
    labels = np.zeros((400, 1), np.uint8)
    labels[::4] = 1
    scores = np.where(labels, 0.9, np.linspace(0.001, 0.1, 400)[:, None])
    chosen = calibration.best(ranked(scores[:, 0], labels[:, 0]), Aim(precision=0.8))
    assert chosen == pytest.approx(0.5, abs=0.01)
    few = Aim(precision=0.8, min_positives=1000)
    (tag,) = calibration.calibrate(stored(tmp_path, scores, labels), ["a"], few).tags
    assert (tag.fallback, tag.fitted.right) == ("few_positives", tag.fitted.positives)
    assert tag.fitted.predicted == tag.fitted.positives


def separable(images=400):
    """One tag that 0.4 tells, one without positives but for two, one that nothing tells."""
    rng = np.random.default_rng(0)
    labels = np.zeros((images, 3), np.uint8)
    labels[:, 0] = rng.random(images) < 0.4
    labels[:2, 1] = 1
    labels[:, 2] = rng.random(images) < 0.1
    scores = rng.random((images, 3)).astype(np.float32)
    scores[:, 0] = 0.35 * scores[:, 0] + 0.45 * labels[:, 0]
    return scores, labels


def test_every_tag_gets_a_threshold_and_says_why(tmp_path):
    scores, labels = separable()
    store = stored(tmp_path, scores, labels)
    found = calibration.calibrate(store, ["frequent", "rare", "noise"], Aim(precision=0.9))
    frequent, rare, noise = found.tags
    assert (frequent.fallback, rare.fallback, noise.fallback) == ("", "few_positives", "unreachable")
    assert frequent.fitted.right == frequent.fitted.positives > 0
    assert frequent.fitted.right == frequent.fitted.predicted
    low, high = frequent.check.precision
    assert low < frequent.check.right / frequent.check.predicted <= high
    assert noise.threshold == calibration.NEVER
    assert rare.threshold == found.shared
    assert sum(found.images) == 400
    assert (store.folder / "scores.f4").exists()


def test_a_rare_tag_falls_back_to_the_models_own_threshold(tmp_path):
    found = calibration.calibrate(stored(tmp_path, *separable()), ["a", "b", "c"], Aim(), [0.1, 0.7, 0.2])
    assert found.tags[1].threshold == 0.7
    assert found.tags[0].before.predicted > found.tags[0].check.predicted
    low, high = found.of1_interval
    assert low < found.of1 < high


def test_the_counts_are_those_of_the_two_parts(tmp_path):
    scores, labels = separable()
    found = calibration.calibrate(stored(tmp_path, scores, labels), ["a", "b", "c"], Aim())
    held = calibration.held_out([f"key {row}" for row in range(400)], 0.3)
    for place, tag in enumerate(found.tags):
        for part, count in ((~held, tag.fitted), (held, tag.check)):
            predicted = scores[part, place] >= tag.threshold
            assert count.predicted == predicted.sum()
            assert count.right == labels[part, place][predicted].sum()
            assert count.positives == labels[part, place].sum()
    right = sum(tag.check.right for tag in found.tags)
    total = sum(tag.check.predicted + tag.check.positives for tag in found.tags)
    assert found.of1 == pytest.approx(2 * right / total)


def test_held_out_images_are_a_matter_of_their_keys():
    keys = [f"source/{number}" for number in range(5000)]
    held = calibration.held_out(keys, 0.3)
    assert held.mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(calibration.held_out(keys[::-1], 0.3), held[::-1])
    assert (calibration.held_out(keys, 0.5) | ~held).all()


def test_too_few_images_to_hold_any_out_are_refused(tmp_path):
    store = stored(tmp_path, np.zeros((1, 1)), np.zeros((1, 1)))
    with pytest.raises(ConfigError, match="of 1 images"):
        calibration.calibrate(store, ["a"], Aim())


def test_intervals_hold_what_they_promise():
    low, high = calibration.wilson(8, 10)
    assert (low, high) == pytest.approx((0.49016, 0.94332), abs=1e-4)
    assert calibration.wilson(0, 0) == (0.0, 1.0)
    rng = np.random.default_rng(5)
    hits = rng.binomial(60, 0.8, 4000)
    inside = [low <= 0.8 <= high for low, high in (calibration.wilson(int(hit), 60) for hit in hits)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_the_interval_of_f1_contains_it():
    check = calibration.Check(positives=20, predicted=18, right=15)
    low, high = check.f1
    assert low < check.point < high
    assert calibration.Check(0, 0, 0).point is None
