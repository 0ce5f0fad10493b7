"""An exponential moving average of a model's weights. Never reads the device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class WeightAverage:
    """A moving average of a model's weights: `average = decay * average + (1 - decay) * weights` after every step."""

    def __init__(self, state: Mapping[str, Tensor], decay: float) -> None:
        """`state` are the weights and buffers that training changes in place, by name."""
        names = [name for name, tensor in state.items() if tensor.is_floating_point() or tensor.is_complex()]
        self._weights = [state[name].detach() for name in names]
        self._share = 1 - decay
        self._originals = dict(state)
        self.tensors = {name: tensor.detach().clone() for name, tensor in state.items()}
        self._averages = [self.tensors[name] for name in names]
        self._others = [(self.tensors[name], state[name]) for name in state if name not in set(names)]

    def on(self, swap: Callable[[Tensor], Tensor]) -> WeightAverage:
        """The same average for other tensors: `swap` maps averages, weights and buffers to their replacements."""
        twin = copy.copy(self)
        twin._weights, twin._averages = [list(map(swap, tensors)) for tensors in (self._weights, self._averages)]
        twin._others = [(swap(copied), swap(original)) for copied, original in self._others]
        return twin

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let the model use the averages in place of its weights and buffers inside; copies nothing.

        Works for modules that :func:`torch.func.functional_call` refuses: DataParallel, scripted and tied ones.
        """
        values = {name: tensor.data for name, tensor in self._originals.items()}
        try:
            for name, tensor in self._originals.items():
                tensor.data = self.tensors[name]
            yield
        finally:
            for name, tensor in self._originals.items():
                tensor.data = values[name]

    def __call__(self) -> None:
        """Update the average with the current weights."""
        if self._averages:
            torch._foreach_lerp_(self._averages, self._weights, self._share)
        for average, original in self._others:
            average.copy_(original)
