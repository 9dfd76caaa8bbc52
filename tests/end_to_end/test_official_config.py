"""The documented config of the official models, as far as it can be checked without them."""

from pathlib import Path

import pytest

from commands import call
from tagmill.models import base
from tagmill.pipeline.config import load_config
from tagmill.tag_system.core.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "official.yaml"

pytestmark = pytest.mark.skipif(not EXAMPLE.exists(), reason="the documents are not beside the tests")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_missing_model_is_named_in_one_line(tmp_path: Path, command: str):
    config = tmp_path / "official.yaml"
    config.write_text(EXAMPLE.read_text().replace("runs/official", str(tmp_path / "run")))
    _, err = call(command, config, code=2)
    (line,) = err.splitlines()
    assert "weights/ram_plus_swin_large_14m" in line
    assert not (tmp_path / "run").exists()


def test_the_models_take_the_options_that_the_config_gives():
    config = load_config(str(EXAMPLE))
    assert config.tag is not None
    assert config.tag.model in base.BUILT_IN
    for section in (config.localize, config.embed):
        assert section is not None
        base.create(section.model, section.options)
    assert config.localize is not None
    assert config.localize.options["box_floor"] <= config.localize.box_floor


def test_the_captioner_that_is_commented_out_is_one(tmp_path: Path):
    text = EXAMPLE.read_text()
    start = text.index("# caption:")
    lines = text[start : text.index("\n\n", start)].splitlines()
    config = tmp_path / "official.yaml"
    config.write_text(
        text[:start] + "\n".join(line.removeprefix("# ") for line in lines) + "\n" + text[start:]
    )
    found = load_config(str(config)).caption
    assert found is not None
    with pytest.raises(ConfigError, match="no model folder weights/tag2text_swin_14m"):
        base.create(found.model, found.options)
