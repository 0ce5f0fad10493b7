"""Copies on the simulated device are complete, bounded in pinned memory, and never make the host wait for all its work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from epochtop.engine.data.dataset import Rows
from epochtop.engine.device import transfer
from epochtop.engine.device.transfer import Downloads, Uploads
from epochtop.engine.step.batches import DataShard, StreamedBatches
from epochtop.engine.step.evaluation import eval_batches
from epochtop.engine.step.window import LossWindow
from tests.support.simulated_device import on_device, simulated_gpu
from tests.support.simulated_device.tensors import SimulatedTensor

GPU = torch.device("cuda", 0)
ORDERS = ["late", "early"]


@pytest.fixture(params=ORDERS)
def device(request: pytest.FixtureRequest) -> Any:
    """A simulated GPU, in both orders of work."""
    with simulated_gpu(request.param) as simulated:
        yield simulated


def rows(count: int = 40) -> Rows:
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(count, 3, generator=generator), torch.randn(count, generator=generator)
    return Rows(x.numpy(), y.numpy())


def trained(window: LossWindow, batches: StreamedBatches, target: torch.device, steps: int = 30) -> Tensor:
    """Weights after some steps of a linear regression; a window ends at every seventh step."""
    start = torch.tensor([0.5, -0.25, 1.0])
    weights: Any = on_device(start, requires_grad=True) if target.type == "cuda" else start.requires_grad_()
    for step in range(steps):
        x, y = batches()
        loss = ((x @ weights - y) ** 2).mean()
        (gradient,) = torch.autograd.grad(loss, weights)
        weights.detach().add_(gradient, alpha=-0.1)
        window.record(loss.detach())
        if step % 7 == 6:
            readings.append(window.turn(0.0))
    readings.extend((window.turn(0.0), window.drain()))
    return weights.detach()  # type: ignore[no-any-return]


readings: list[Any] = []


def run_on(target: torch.device) -> tuple[Tensor, Tensor]:
    """Losses and weights."""
    readings.clear()
    batches = StreamedBatches(rows(), 8, 1, DataShard(), target)
    weights = trained(LossWindow(target), batches, target)
    return torch.cat([reading.losses for reading in readings if reading is not None]), weights


def test_streamed_steps_and_windows_equal_those_of_the_cpu(device: Any) -> None:
    expected_losses, expected = run_on(torch.device("cpu"))
    losses, weights = run_on(GPU)
    assert device.waits == 0
    torch.testing.assert_close(losses, expected_losses, rtol=0, atol=0)
    device.finish()
    torch.testing.assert_close(weights.held, expected, rtol=0, atol=0)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("owner", "method", "order"),
    [
        ("Stream", "wait_stream", "late"),
        ("Stream", "wait_event", "late"),
        ("Event", "synchronize", "late"),
    ],
)
def test_a_missing_wait_is_seen(owner: str, method: str, order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated_gpu(order):
        monkeypatch.setattr(getattr(torch.cuda, owner), method, lambda *_: None)
        losses, _ = run_on(GPU)
    assert bool(losses.isnan().any())


def test_memory_that_is_used_again_too_early_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedTensor, "record_stream", lambda *_: None)
    with simulated_gpu("early"):
        losses, _ = run_on(GPU)
    assert bool(losses.isnan().any())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(1000.0),
        torch.arange(720.0).reshape(2, 3, 10, 12).to(memory_format=torch.channels_last),
        torch.arange(60.0).reshape(6, 10).t(),
        torch.arange(60.0).reshape(6, 10)[:, ::2],
        torch.tensor(3.0),
        torch.empty(0, 4),
        torch.tensor([True, False, True]),
        torch.arange(300, dtype=torch.int64),
        torch.randn(9, dtype=torch.complex64),
    ],
    ids=["vector", "channels last", "transposed", "with gaps", "scalar", "empty", "bool", "int64", "complex"],
)
def test_downloads_equal_the_originals(device: Any, tensor: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "BUFFER_BYTES", 256)
    there = SimulatedTensor(tensor)
    copy = Downloads()({"weight": there, "cpu": tensor})
    assert copy["cpu"] is tensor
    assert type(copy["weight"]) is Tensor
    assert torch.equal(copy["weight"], tensor)
    assert device.waits == 0
    assert SimulatedTensor.pinned.held_bytes <= 256


def test_a_checkpoint_pins_one_buffer_however_large_it_is(device: Any) -> None:
    """Pinned for each tensor, rounded up to powers of two, it was more than the checkpoint."""
    window = LossWindow(GPU)
    state = tuple(on_device(torch.full((3_000,), float(number))) for number in range(50))
    window.attach("save", state, stay=True)
    window.record(on_device(torch.zeros(())))
    window.turn(0.0)
    reading = window.drain()
    assert reading is not None
    ((_, tensors),) = reading.attached
    before = SimulatedTensor.pinned.held_bytes
    copies = Downloads()(dict(zip(map(str, range(50)), tensors, strict=True)))
    assert all(bool((copies[str(number)] == number).all()) for number in range(50))
    assert before < 100
    assert SimulatedTensor.pinned.held_bytes - before == transfer.BUFFER_BYTES


def test_evaluation_rows_are_copied_without_waiting(device: Any) -> None:
    held_out = rows(100)
    batches = eval_batches(held_out, GPU, resident=False, batch_rows=10, careful=True)
    seen = [(x, y) for x, y, _ in batches]
    assert device.waits == 0
    device.finish()
    torch.testing.assert_close(torch.cat([x.held for x, _ in seen]), torch.from_numpy(held_out.x))
    torch.testing.assert_close(torch.cat([y.held for _, y in seen]), torch.from_numpy(held_out.y))


def test_uploads_are_a_bounded_way_ahead(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "AHEAD_BYTES", 4096)
    upload = Uploads(GPU)
    sent = []
    for number in range(50):
        sent.append(upload(torch.full((256,), float(number))))
        device.launch(lambda: None, 0.001)
    assert device.waits == 0
    assert device.event_waits >= 40
    assert SimulatedTensor.pinned.held_bytes <= 4096 + 2 * 1024
    device.finish()
    assert [float(copy.held[0]) for copy in sent] == list(range(50))  # type: ignore[attr-defined]
