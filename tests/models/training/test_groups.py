import json
import re
from pathlib import Path

import pytest
import timm
import torch
from timm.models import group_parameters

from commands import call
from tagmill.models.training.blocks import depths_of
from tagmill.tag_system.core.errors import ConfigError
from trainings import MODEL, lines, trainer_of, weights

GROUPED = {"schedule": {"encoder_rate": 0.5, "layer_decay": 0.8}, "engine": {"decayed": "matrices"}}


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_depths_are_those_that_timm_knows_of_whole_models(name):
    with torch.device("meta"):
        trunk = timm.create_model(name, num_classes=0)
    depths = depths_of(trunk)
    theirs = group_parameters(trunk, trunk.group_matcher(coarse=False))
    assert {name: depth for depth, names in theirs.items() for name in names} == depths


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto", "resnet18"])
def test_encoders_that_give_maps_of_stages_have_a_depth_for_each_block(name):
    with torch.device("meta"):
        trunk = timm.create_model(name, features_only=True, out_indices=[2, 3])
    depths = list(depths_of(trunk).values())
    assert depths == sorted(depths)
    assert set(depths) == set(range(len(set(depths))))
    assert len(set(depths)) > 6


def test_groups_learn_at_their_rates_and_resume_to_the_bit(values_of):
    whole, parts = values_of("whole", **GROUPED), values_of("parts", **GROUPED)
    said = []
    expected = trainer_of(whole, say=said.append)
    assert any(re.fullmatch(r"others: [\d,]+ parameters, rate x 1, weight decay 0.05", line) for line in said)
    assert any(line.startswith("encoder, layer 0 of 4, norms and biases: ") for line in said)
    rates = {}
    for group, found in zip(expected.learner.groups, expected.learner._optimizer.param_groups, strict=True):
        assert {id(value) for value in found["params"]} == {
            id(dict(expected.model.named_parameters())[name]) for name in group.parameters
        }
        rates |= dict.fromkeys(group.parameters, (group.rate, found["weight_decay"]))
    assert rates["encoder.trunk.conv1.weight"] == (pytest.approx(0.5 * 0.8**5), 0.05)
    assert rates["encoder.trunk.layer4.0.bn1.bias"] == (pytest.approx(0.5 * 0.8), 0.0)
    assert rates["encoder.projections.0.weight"] == (0.5, 0.05)
    assert rates["encoder.norms.0.weight"] == (0.5, 0.0)
    assert rates["score_projection.weight"] == (1.0, 0.05)
    assert expected.run()
    assert not trainer_of(parts).run(until=2)
    assert trainer_of(parts, resume=True).run()
    assert lines(parts) == lines(whole)
    ours, theirs = weights(parts), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    first = json.loads((Path(whole["out"]) / "log.jsonl").read_text().splitlines()[0])
    assert len(first["learned"]) == len(expected.learner.groups)


def test_layers_of_one_rate_take_the_steps_of_no_groups(values_of):
    same = {"encoder_rate": 1.0, "layer_decay": 1.0}
    plain, grouped = values_of("plain", epochs=1), values_of("grouped", epochs=1, schedule=same)
    assert trainer_of(plain).run()
    trainer = trainer_of(grouped)
    assert len(trainer.learner.groups) > 1
    assert trainer.run()
    assert lines(grouped) == lines(plain)
    ours, theirs = weights(grouped), weights(plain)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_is_frozen_stays_and_all_else_learns(values_of):
    values = values_of(epochs=1, engine={"freeze": ["encoder.trunk", "label_projection"]})
    trainer = trainer_of(values)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert trainer.run()
    end = trainer.model.state_dict()
    stays = {name for name in start if torch.equal(start[name], end[name])}
    frozen = {name for name in start if name.startswith(("encoder.trunk.", "label_projection."))}
    assert frozen <= stays  # statistics of batches are among them
    assert "head.layers.0.attention.query.weight" not in stays
    with pytest.raises(ConfigError, match=r"cannot be resumed with another engine\.freeze"):
        trainer_of(values_of(epochs=2), resume=True)


def test_other_groups_are_taken_up_on_the_way_with_a_word(values_of):
    assert not trainer_of(values_of()).run(until=2)
    said = []
    trainer = trainer_of(values_of(**GROUPED), resume=True, say=said.append)
    (line,) = [line for line in said if "from here on" in line]
    assert line == (
        "from here on with another schedule.encoder_rate, schedule.layer_decay, engine.decayed than before"
    )
    assert trainer.run()


def test_parts_that_a_model_lacks_are_refused_in_a_line(values_of, tmp_path):
    (tmp_path / "train.yaml").write_text(json.dumps(values_of(engine={"freeze": ["trunk"]})))
    _, err = call("train", tmp_path / "train.yaml", code=2)
    (line,) = err.splitlines()
    assert line.startswith("tagmill: engine.freeze: the model has no trunk; its parts are encoder, ")
    with pytest.raises(ConfigError, match=r"engine\.freeze: encoder\.trunk\.maxpool has nothing that could"):
        trainer_of(values_of(engine={"freeze": ["encoder.trunk.maxpool"]}))
    vgg = {"name": "vgg11", "width": 16, "stages": [2], "arguments": {}}
    with pytest.raises(ConfigError, match=r"schedule\.layer_decay: the encoder vgg11 has no blocks"):
        trainer_of(values_of(model={**MODEL, "encoder": vgg}, schedule={"layer_decay": 0.8}))
    everything = ["encoder", "image_projection", "label_projection", "head", "score_projection"]
    with pytest.raises(ConfigError, match="nothing of the model is left to learn"):
        trainer_of(values_of("none", engine={"freeze": [*everything, "reweight_scale"]}))
