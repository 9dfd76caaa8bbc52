import pytest
import torch

from tagmill.models.ram.position_tables import resize


def test_tables_become_those_of_another_window(golden):
    data = golden.tensors("loader")
    cases = [name for name in data if name.startswith("in.")]
    assert len(cases) == 3
    for name in cases:
        resized = resize(data[name], int(name.rsplit("_", 1)[1]))
        torch.testing.assert_close(resized, data["out" + name[2:]], rtol=0, atol=1e-6)


def test_the_same_window_is_the_same_table():
    table = torch.randn(25, 2)
    assert resize(table, 3) is table


@pytest.mark.parametrize("rows", [16, 24])
def test_a_table_of_no_square_window_is_refused(rows):
    with pytest.raises(ValueError, match=f"cannot have {rows} rows"):
        resize(torch.zeros(rows, 1), 3)


@torch.no_grad()
def test_a_checkpoint_runs_at_another_window_and_image_size(golden):
    data = golden.tensors("loader")
    model = golden.ram_plus(window=4, image_size=128)
    layers = model.encoder.trunk.layers
    for layer, block in ((0, 0), (3, 1)):
        table = layers[layer].blocks[block].attn.relative_position_bias_table
        torch.testing.assert_close(table, data[f"table.layers.{layer}.blocks.{block}"], rtol=0, atol=1e-6)
    assert model(torch.zeros(1, 3, 128, 128)).shape == (1, 40)
