import json
import pickle
import shutil
from pathlib import Path

import pytest

from runs import current_folder, drive
from tagmill.models.ram.config import EncoderConfig, RamConfig
from tagmill.models.training.data import DataConfig, open_loader
from tagmill.models.training.newer import StoredDecisions
from tagmill.models.training.targets import NewerTag
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.overlay import lay_decisions
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.sample_tags import evidence_of

CLASSES = ("red", "green square", "blue", "yellow")


@pytest.fixture(scope="module")
def other(finished, tmp_path_factory) -> Path:
    """The finished run once more, with verdicts by another policy; the second tar was never ingested."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(finished / "run", folder / "run")
    config = next(finished.glob("*.yaml"))
    drive(config, f"run={folder / 'run'}", "clean.policy.rule=paper", "clean.policy.trust_given=false")
    return folder / "run"


@pytest.fixture(scope="module")
def laid(other, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("laid")
    about = lay_decisions(RunFolder(str(other)), folder)
    assert about["examples"] == 22
    return folder


def targets(folder, *, decisions=None, tags="stored", split="train"):
    data = {"datasets": [{"path": str(folder), "tags": tags}], "batch_size": 14, "workers": 0}
    model = RamConfig(encoder=EncoderConfig(name="none", width=8), classes=CLASSES, image_size=32)
    (batch,) = open_loader(DataConfig.model_validate(data), model, split, decisions=decisions)
    rows = zip(batch.ids, batch.targets.tolist(), batch.known.tolist(), strict=True)
    return {key: (values, known) for (_, key), values, known in rows}


@pytest.mark.parametrize("tags", ["stored", "proposed"])
def test_old_shards_with_the_decisions_of_a_run_teach_what_its_own_shards_do(finished, other, laid, tags):
    old, new = current_folder(finished / "run", "shards"), current_folder(other, "shards")
    overlaid = targets(old, decisions=pickle.loads(pickle.dumps(StoredDecisions(laid))), tags=tags)
    assert overlaid == targets(new, tags=tags)
    assert (overlaid == targets(old, tags=tags)) == (tags == "proposed")


def samples(folder):
    import tarfile

    from tagmill.tag_system.shard_contract import Sample

    with tarfile.open(folder / "train-000000.tar") as tar:
        found = [tar.extractfile(member).read() for member in tar if member.name.endswith(".json")]
    return [Sample.model_validate_json(text) for text in found]


def test_decisions_come_back_as_the_shards_have_them(other, laid):
    stored = StoredDecisions(laid)
    for sample in samples(current_folder(other, "shards")):
        assert stored.tags_of(sample) == [
            NewerTag(tag.tag, tag.verdict, tag.rule, tag.basis, evidence_of(tag)) for tag in sample.tags
        ]


def test_another_image_or_key_keeps_the_decisions_of_its_shard(other, laid):
    stored = StoredDecisions(laid)
    sample = samples(current_folder(other, "shards"))[0]
    assert stored.tags_of(sample) is not None
    assert stored.tags_of(sample.model_copy(update={"sha256": "f" * 64})) is None
    assert stored.tags_of(sample.model_copy(update={"key": "squares/unknown"})) is None


def test_a_run_that_cannot_decide_the_dataset_is_refused(other, laid, finished, tmp_path):
    stored = StoredDecisions(laid)
    digest = json.loads((current_folder(other, "shards") / "manifest.json").read_text())["vocabulary"]
    with pytest.raises(ConfigError, match=r"knows none of the keys of mine \(such as a/1\)"):
        stored.check("mine", digest, ["a/1", "a/2"])
    with pytest.raises(ConfigError, match="another vocabulary than mine"):
        stored.check("mine", "0" * 64, ["squares/000000"])
    with pytest.raises(ConfigError, match="in which the stage clean is done"):
        lay_decisions(RunFolder(str(tmp_path)), tmp_path / "none")
    with pytest.raises(ConfigError, match="is not a folder of a run's decisions"):
        StoredDecisions(tmp_path)
