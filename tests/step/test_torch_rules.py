"""Optimizers of torch under the versions and layouts that people have; expected values come from `backward()` and `step()`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from epochtop.engine.protocol.spec import Invalid, RunSpec
from epochtop.engine.step import torch_rules
from epochtop.engine.step.torch_rules import TorchRule, in_layout_of, make_update_rule
from epochtop.engine.step.update_rules import Adam


@pytest.fixture
def no_fused_adagrad(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A torch whose Adagrad has no fused variant, as on CUDA before 2.12."""
    original = torch.optim.Adagrad

    def adagrad(*arguments: Any, fused: bool | None = None, **more: Any) -> torch.optim.Optimizer:
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be floating point Tensors of supported devices")
        return original(*arguments, fused=fused, **more)

    monkeypatch.setattr(torch.optim, "Adagrad", adagrad)
    torch_rules.has_fused.cache_clear()
    torch_rules.can_scale_loss.cache_clear()
    yield
    torch_rules.has_fused.cache_clear()
    torch_rules.can_scale_loss.cache_clear()


@pytest.mark.usefixtures("no_fused_adagrad")
def test_adagrad_trains_where_torch_has_no_fused_one() -> None:
    weight, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    rule = make_update_rule(RunSpec(optimizer="adagrad", learning_rate=0.1), [weight])
    plain = torch.optim.Adagrad([other], lr=0.1)
    for number in range(3):
        rule([torch.full((3,), 1.0 + number)])
        other.grad = torch.full((3,), 1.0 + number)
        plain.step()
    assert torch.equal(weight, other)


@pytest.mark.usefixtures("no_fused_adagrad")
def test_fp16_is_refused_where_torch_has_no_fused_optimizer() -> None:
    with pytest.raises(Invalid, match="fp16 needs a fused adagrad"):
        make_update_rule(RunSpec(optimizer="adagrad", precision="fp16"), [nn.Parameter(torch.ones(3))])


def test_fp16_is_refused_where_torch_has_no_loss_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Apple's GPUs before torch 2.8, which have fused optimizers, the first step of a run failed."""

    def missing(*_: object) -> None:
        raise NotImplementedError("The operator 'aten::_amp_update_scale_' is not implemented for the MPS device")

    monkeypatch.setattr(torch, "_amp_update_scale_", missing)
    torch_rules.can_scale_loss.cache_clear()
    try:
        with pytest.raises(Invalid, match="fp16 needs a fused adam with a loss scale"):
            make_update_rule(RunSpec(optimizer="adam", precision="fp16"), [nn.Parameter(torch.ones(3))])
    finally:
        torch_rules.can_scale_loss.cache_clear()


OPERATIONS = {
    "einsum": lambda x, w: torch.einsum("bi,hio->bho", x, w),
    "bmm of a transposed weight": lambda x, w: torch.bmm(x.expand(2, -1, -1), w.transpose(1, 2).transpose(1, 2)),
    "permuted": lambda x, w: x.sum() * w.permute(2, 0, 1),
    "sum": lambda x, w: w.sum(),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_get_the_layout_of_their_parameters(name: str) -> None:
    """`autograd.grad` leaves other strides than `backward()`, and the fused kernels of CUDA refuse those."""
    torch.manual_seed(0)
    x, start = torch.randn(5, 3), torch.randn(2, 3, 4)
    ours, plain = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    rule, optimizer = TorchRule([ours], [torch.optim.Adam([ours], lr=0.1)]), torch.optim.Adam([plain], lr=0.1)
    for _ in range(3):
        (gradient,) = torch.autograd.grad(OPERATIONS[name](x, ours).square().mean(), ours)
        rule([gradient])
        assert ours.grad is not None
        assert ours.grad.stride() == ours.stride()
        optimizer.zero_grad()
        OPERATIONS[name](x, plain).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(ours, plain, rtol=0, atol=0)


def test_a_gradient_in_the_right_layout_is_not_copied() -> None:
    parameter = torch.randn(3, 4)
    gradient = torch.randn(3, 4)
    assert in_layout_of(parameter, gradient) is gradient


def test_a_channels_last_weight_keeps_its_layout() -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    gradient = torch.randn(4, 3, 2, 2)
    result = in_layout_of(weight, gradient)
    assert result.stride() == weight.stride()
    assert torch.equal(result, gradient)


@pytest.mark.parametrize("steps", [1, 7])
def test_a_run_of_the_cpu_continues_with_the_optimizer_of_the_gpu(steps: int) -> None:
    """The CPU has a rule of its own, without step counts; CUDA has torch's Adam. The other way, counts are ignored."""
    torch.manual_seed(0)
    start = torch.randn(6)
    gradients = [torch.randn(6) for _ in range(steps + 4)]
    expected = nn.Parameter(start.clone())
    plain = torch.optim.Adam([expected], lr=0.05)
    for gradient in gradients:
        expected.grad = gradient.clone()
        plain.step()

    ours = nn.Parameter(start.clone())
    rule = Adam([ours], 0.05, 0.0, decoupled=False)
    for gradient in gradients[:steps]:
        rule([gradient])
    there: TorchRule | Adam = TorchRule([ours], [torch.optim.Adam([ours], lr=0.05)])
    there.load_state_dict(state_of(rule), steps)
    for gradient in gradients[steps:-2]:
        there([gradient])
    back = Adam([ours], 0.05, 0.0, decoupled=False)
    back.load_state_dict(state_of(there), steps + 2)
    for gradient in gradients[-2:]:
        back([gradient])
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7)


def state_of(rule: Any) -> dict[str, dict[int, Tensor]]:
    return {name: {number: one.clone() for number, one in slot.items()} for name, slot in rule.state_dict().items()}
