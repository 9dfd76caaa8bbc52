import pytest
import torch

from tagmill.models.ram.losses import asymmetric_loss


def test_asymmetric_loss_and_its_gradient(golden):
    data, rows = golden.tensors("asl"), golden.values("asl")
    assert len({row["config"] for row in rows}) == 8
    for row in rows:
        case, arguments = row["case"], row["args"]
        logits = data[f"logits.{case}"].clone().requires_grad_()
        loss = asymmetric_loss(
            logits,
            data[f"targets.{case}"],
            gamma_negative=arguments["gamma_neg"],
            gamma_positive=arguments["gamma_pos"],
            clip=arguments["clip"],
            through_focus=not arguments.get("disable_torch_grad_focal_loss", True),
        )
        assert loss.item() == pytest.approx(row["loss"], rel=1e-6)
        loss.backward()
        wanted = data[f"grad.{row['config']}.{case}"]
        torch.testing.assert_close(logits.grad, wanted, rtol=1e-5, atol=1e-6)
