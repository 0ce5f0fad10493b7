"""The random generators that a model or a Dataset draws from: torch's on the host and the device, numpy's and Python's.

Their states are on the host, so nothing here reads the device. Never imports data, models or tasks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

HOST, DEVICE, MPS, NUMPY, PYTHON = "rng.cpu", "rng.cuda", "rng.mps", "rng.numpy", "rng.python"
"""Names of the states in a checkpoint."""
NUMPY_SEEDS = 2**32
WORDS = {NUMPY: 624, PYTHON: 625}
"""Integers in the states of the Mersenne Twisters; Python's include the position."""


def seed(number: int) -> None:
    """Seed all generators."""
    torch.manual_seed(number)
    np.random.seed(number % NUMPY_SEEDS)
    random.seed(number)


def seed_for(base: int, *numbers: int) -> None:
    """Seed all generators for one part of a job, such as a batch: other numbers give independent streams."""
    words = np.random.SeedSequence([base, *numbers]).generate_state(4)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
    np.random.seed(words)
    random.seed(words.tobytes())


def states(device: torch.device) -> dict[str, Tensor]:
    """The states of all generators by name. numpy's is missing if the user replaced its bit generator."""
    named = {HOST: torch.get_rng_state(), PYTHON: _python_state()}
    numpy_state = _numpy_state()
    if numpy_state is not None:
        named[NUMPY] = numpy_state
    if device.type == "cuda":
        named[DEVICE] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        named[MPS] = torch.mps.get_rng_state()
    return named


def restore(named: Mapping[str, Tensor], device: torch.device, suffix: str = "") -> None:
    """Restore :func:`states`, whose names end in `suffix`. Checkpoints of older versions lack some."""
    if HOST + suffix in named:
        torch.set_rng_state(named[HOST + suffix])
    if DEVICE + suffix in named and device.type == "cuda":
        torch.cuda.set_rng_state(named[DEVICE + suffix], device)
    if MPS + suffix in named and device.type == "mps":
        torch.mps.set_rng_state(named[MPS + suffix])
    if PYTHON + suffix in named:
        words, _, gauss = _parts(named[PYTHON + suffix], PYTHON)
        random.setstate((3, tuple(words), gauss))
    if NUMPY + suffix in named:
        words, (position,), gauss = _parts(named[NUMPY + suffix], NUMPY)
        np.random.set_state(("MT19937", np.array(words, np.uint32), position, int(gauss is not None), gauss or 0.0))


def _python_state() -> Tensor:
    """Python's generator as float64 (627,), which is exact: words and position, then whether a normal draw is left."""
    _, words, gauss = random.getstate()
    return torch.tensor([*words, gauss is not None, gauss or 0.0], dtype=torch.float64)


def _numpy_state() -> Tensor | None:
    """numpy's generator in the same form; None if it is not a Mersenne Twister."""
    state: Any = np.random.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        return None
    rest = [state["state"]["pos"], state["has_gauss"], state["gauss"]]
    return torch.from_numpy(np.concatenate([state["state"]["key"], rest]).astype(np.float64))


def _parts(state: Tensor, name: str) -> tuple[list[int], list[int], float | None]:
    """Words, further integers, and the normal draw that is left, if there is one."""
    values = state.tolist()
    words, rest = [int(value) for value in values[: WORDS[name]]], [int(value) for value in values[WORDS[name] : -2]]
    return words, rest, values[-1] if values[-2] else None


# --- forks -------------------------------------------------------------------------------------------------


@contextmanager
def forked(device: torch.device, own: Iterable[object] = ()) -> Iterator[None]:
    """Restore all generators afterwards, as if nothing had been drawn: the global ones, and the user's `own`."""
    numpy_state: Any = np.random.get_state(legacy=False)
    undo: list[Callable[[], object]] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, numpy_state),
        *map(_undo, own),
    ]
    with torch.random.fork_rng(**_fork_arguments(device)):
        try:
            yield
        finally:
            for restore_one in undo:
                restore_one()


def _fork_arguments(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        return {"devices": [torch.cuda.current_device() if device.index is None else device.index]}
    return {"devices": [0], "device_type": "mps"} if device.type == "mps" else {"devices": []}


KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
"""Types of generators that a user's objects may own."""


def _undo(generator: Any) -> Callable[[], object]:
    """Function that restores the current state of a generator."""
    if isinstance(generator, torch.Generator):
        return partial(generator.set_state, generator.get_state())
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return partial(generator.set_state, generator.get_state(legacy=False))
    return partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)
