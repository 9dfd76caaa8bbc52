"""Models that break their contract: for one image it dies alone, for all the run ends in one line."""

import pytest

from broken_models import BOXES, CLASSES, SCORES, TEXTS
from runs import current_record, drive, squares_config
from tagmill.tag_system.core.errors import ConfigError
from troubled_models import digests_of


def broken(name: str, **options: object) -> dict[str, object]:
    return {"model": f"broken_models:{name}", "options": options}


CALLS = [
    *(("tag", "BrokenTagger", how) for how in (*SCORES, "fewer")),
    *(("localize", "BrokenLocalizer", how) for how in BOXES),
]


@pytest.mark.parametrize(("stage", "name", "how"), CALLS)
def test_an_answer_that_breaks_the_contract_is_a_dead_letter_of_its_image_alone(tmp_path, stage, name, how):
    config = squares_config(tmp_path, {"a.tar": (12, 0)}, cluster=None, embed=None)
    bad = [digests_of(tmp_path / "data" / "a.tar")[7]]
    squares_config(tmp_path, {}, cluster=None, embed=None, **{stage: broken(name, how=how, bad=bad)})
    drive(config)
    record = current_record(tmp_path / "run", stage)
    assert record.count("example", "dead") == 1
    assert [part.counts.dead for part in record.parts.values() if part.counts.dead] == [{"model_failed": 1}]


@pytest.mark.parametrize(
    ("stage", "name", "how"), [*CALLS, *(("embed", "BrokenEmbedder", how) for how in ("regions", *TEXTS))]
)
def test_answers_that_all_break_the_contract_name_the_model_and_end_the_run(tmp_path, stage, name, how):
    config = squares_config(tmp_path, {"a.tar": (12, 0)}, cluster=None, **{stage: broken(name, how=how)})
    with pytest.raises(ConfigError, match=f"^{stage}.model broken_models:{name}: (the|of the)[^\n]*$"):
        drive(config)


@pytest.mark.parametrize("how", CLASSES)
def test_class_names_that_are_none_end_a_run_before_anything_is_made(tmp_path, how):
    config = squares_config(tmp_path, {"a.tar": (2, 0)}, tag=broken("NamelessTagger", how=how))
    with pytest.raises(ConfigError, match=r"^tag.model broken_models:NamelessTagger: the model's class"):
        drive(config)
    assert not (tmp_path / "run").exists()
