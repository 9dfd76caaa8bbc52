import shutil
from pathlib import Path

import numpy as np
import pytest

from runs import current_folder, current_record, damaged, drive, state
from tagmill.pipeline.current import current_records
from tagmill.pipeline.run_folder import RunFolder

FEATURES = "features={model: 'square_models:SquareTeacher'}"
MORE = "features.options={scale: 3.0}"


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def again(finished, run, *overrides):
    return drive(next(finished.glob("*.yaml")), f"run={run}", *overrides)


def test_features_are_added_to_a_finished_run_and_made_once(finished, run):
    shards = state(run / "shards")
    assert again(finished, run, FEATURES).jobs == [
        ("features", ["train-000000", "train-000001", "val-000000"])
    ]
    assert state(run / "shards") == shards
    folder = current_folder(run, "features")
    rows = {path.stem: len(np.load(path)) for path in folder.glob("*.npy")}
    assert rows == {"train-000000": 9, "train-000001": 5, "val-000000": 8}
    assert current_record(run, "features").count("example", "out") == 22
    assert [record.stage for record in current_records(RunFolder(str(run)))][-1] == "features"
    assert again(finished, run, FEATURES).jobs == []
    assert damaged(run) == []


def test_another_model_makes_another_generation(finished, run):
    again(finished, run, FEATURES)
    before = current_folder(run, "features")
    again(finished, run, FEATURES, MORE)
    ours, theirs = (
        np.load(folder / "train-000000.npy") for folder in (current_folder(run, "features"), before)
    )
    np.testing.assert_allclose(ours, theirs * 0.3, rtol=2e-3)


def test_damaged_and_half_written_features_are_found_and_made_again(finished, run):
    again(finished, run, FEATURES)
    folder = current_folder(run, "features")
    good = np.load(folder / "train-000000.npy")
    np.save(folder / "train-000000.npy", good + 1)
    assert damaged(run) == [f"{folder}/train-000000.npy does not match its recorded digest"]
    # As after a worker that died between the array and its part.
    (folder / "train-000000.parquet").unlink()
    assert again(finished, run, FEATURES).jobs == [("features", ["train-000000"])]
    np.testing.assert_array_equal(np.load(folder / "train-000000.npy"), good)
    assert damaged(run) == []
    Path(folder / "val-000000.npy").unlink()
    assert damaged(run) == [f"{folder}/val-000000.npy is missing"]
