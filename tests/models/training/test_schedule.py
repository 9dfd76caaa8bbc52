import pytest

from tagmill.models.training.schedule import ScheduleConfig, learning_rate


def test_the_learning_rates_are_the_official_ones():
    paper = ScheduleConfig()
    official = {0: 5e-7, 1: 5.331666666666666e-07, 1500: 5.025000000000001e-05, 3000: 1e-4, 5000: 1e-4}
    for step, rate in official.items():
        assert learning_rate(paper, step, step / 10_000, 5) == pytest.approx(rate)
    for epoch, rate in {1: 9e-5, 2: 8.1e-5, 4: 6.561e-5, 60: 5e-7}.items():
        assert learning_rate(paper, 10_000 * epoch, epoch, 5) == pytest.approx(rate)
    cosine = ScheduleConfig(learning_rate=5e-6, decay="cosine", floor=0, warmup_steps=0)
    for epoch, rate in {0: 5e-6, 1: 2.5e-6, 2: 0.0}.items():
        assert learning_rate(cosine, 100 * epoch, epoch, 2) == pytest.approx(rate)
