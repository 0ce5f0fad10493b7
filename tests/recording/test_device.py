"""Values on a device are copied there, and read only when the device has computed them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from epochtop.recording import writer
from epochtop.recording.run import Run
from epochtop.recording.values import device
from tests.recording.scripts import only_run, series
from tests.support.engines import wait_until
from tests.support.fakes import fake_torch
from tests.support.fakes.fake_torch import DEVICE, Stream, on_device, stream


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run of a script whose torch has a device."""
    DEVICE.streams[:] = [DEVICE.current]
    DEVICE.current.work.clear()
    DEVICE.current.capturing = False
    monkeypatch.setitem(sys.modules, "torch", fake_torch.TORCH)  # type: ignore[arg-type]
    run = Run("device")
    yield run
    DEVICE.run()
    run.finish()


def drained(recording: Run, steps: int) -> bool:
    """Whether the writer has taken so many steps from the queue."""
    assert recording._writer is not None
    return recording._writer._numbering.next == steps


def test_nothing_waits_for_the_device_and_every_value_arrives(recording: Run, home: Path) -> None:
    for step in range(100):
        recording.log(loss=on_device(step / 2), plain=float(step))
    wait_until(lambda: drained(recording, 100))
    time.sleep(0.25)
    assert series(only_run(home)) == {}
    DEVICE.run()
    wait_until(lambda: series(only_run(home)))
    recording.log(loss=on_device(7.0))
    wait_until(lambda: drained(recording, 101))
    DEVICE.run()
    wait_until(lambda: arrived(home, 101))
    values = series(only_run(home))
    assert values["loss"] == [*((step, step / 2) for step in range(100)), (100, 7.0)]
    assert values["plain"] == [(step, float(step)) for step in range(100)]


def _run_until(condition: bool) -> bool:
    DEVICE.run()
    return condition


def arrived(home: Path, count: int, name: str = "loss") -> bool:
    """Let the device work; whether the log has this many values of a series."""
    return _run_until(len(series(only_run(home)).get(name, ())) >= count)


def test_a_tensor_may_be_overwritten_after_it_was_logged(recording: Run, home: Path) -> None:
    loss = on_device(1.0)
    recording.log(loss=loss)
    loss.copy_(on_device(2.0))
    recording.log(loss=loss)
    wait_until(lambda: arrived(home, 2))
    assert series(only_run(home)) == {"loss": [(0, 1.0), (1, 2.0)]}


def test_the_copies_come_after_the_work_of_every_stream(recording: Run, home: Path) -> None:
    side = Stream()
    with stream(side):
        recording.log(a=on_device(1.0))
    recording.log(a=on_device(2.0))
    wait_until(lambda: drained(recording, 2))
    time.sleep(0.15)
    for each in [each for each in DEVICE.streams if each is not side]:
        each.run()
    time.sleep(0.15)
    assert series(only_run(home)) == {}
    wait_until(lambda: arrived(home, 2, "a"))
    assert series(only_run(home)) == {"a": [(0, 1.0), (1, 2.0)]}


def test_blocks_of_device_memory_are_used_again(recording: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "SLOTS", 8)
    monkeypatch.setattr(device, "BLOCKS", 4)
    for step in range(64):
        recording.log(loss=on_device(float(step)))
        if step % 16 == 15:
            wait_until(lambda: arrived(home, step + 1))  # noqa: B023
    assert series(only_run(home)) == {"loss": [(step, float(step)) for step in range(64)]}


def test_a_device_that_is_far_behind_loses_values_and_no_memory(
    recording: Run, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "SLOTS", 8)
    monkeypatch.setattr(device, "BLOCKS", 2)
    for step in range(30):
        recording.log(loss=on_device(float(step)))
    wait_until(lambda: arrived(home, 16))
    assert series(only_run(home)) == {"loss": [(step, float(step)) for step in range(16)]}
    assert "is 16 values behind" in capsys.readouterr().err


@pytest.mark.parametrize(("dtype", "value"), [("float64", 0.1), ("int64", float(1 << 40)), ("float16", 0.5)])
def test_numbers_keep_their_precision(recording: Run, home: Path, dtype: str, value: float) -> None:
    recording.log(x=on_device(value, dtype))
    wait_until(lambda: _run_until("x" in series(only_run(home))))
    assert series(only_run(home)) == {"x": [(0, value)]}


def test_a_value_logged_while_a_graph_is_captured_is_refused(
    recording: Run, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = on_device(1.0)
    recording.log(loss=loss)
    DEVICE.current.capturing = True
    recording.log(loss=loss)
    wait_until(lambda: drained(recording, 2))
    time.sleep(0.15)
    assert not any(each.work for each in DEVICE.streams if each is not DEVICE.current)
    DEVICE.current.capturing = False
    wait_until(lambda: _run_until("loss" in series(only_run(home))))
    assert series(only_run(home)) == {"loss": [(0, 1.0)]}
    assert "loss is ignored because it is logged while a CUDA graph is captured" in capsys.readouterr().err


def test_other_shapes_and_types_are_reported(recording: Run, capsys: pytest.CaptureFixture[str]) -> None:
    recording.log(pair=fake_torch.zeros(2, fake_torch.TORCH.float32, DEVICE), z=on_device(1.0, "complex64"))
    errors = capsys.readouterr().err
    assert "pair is ignored" in errors
    assert "z is ignored because it is a tensor of type complex64" in errors


def test_the_end_does_not_wait_forever_for_the_device(
    recording: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "DEVICE_S", 0.1)
    recording.log(loss=1.0)
    wait_until(lambda: series(only_run(home)))
    recording.log(loss=on_device(1.0))
    recording.finish()
    assert series(only_run(home)) == {"loss": [(0, 1.0)]}


def test_the_ring_of_a_device_keeps_no_graph(home: Path) -> None:
    """With the real torch, on the CPU: a ring that kept the graph would need memory for every step."""
    ring = device.Ring(torch, torch.device("cpu"), torch.float32)
    ring._module = None  # as for a device without events
    weight = torch.ones((), requires_grad=True)
    slot = ring.put(weight * 3)
    with torch.inference_mode():
        second = ring.put(torch.ones(1) * 4)
    assert not slot.block.buffer.requires_grad
    device.send([slot, second])
    assert (slot.read(), second.read()) == (3.0, 4.0)
