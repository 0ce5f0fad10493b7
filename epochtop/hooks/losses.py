"""The loss of a backward pass: on the CPU as a number, on a device as a tensor that stays there.

Never imports torch and never reads a device.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CUDA_GRAPHS = "torch._inductor.cudagraph_trees"
"""Module that is loaded if the memory of a loss may be reused by the next step."""


class LossReader:
    """Reads losses; undoes the scale of a gradient scaler."""

    def __init__(self) -> None:
        self._scaled: Any = None
        """The last result of a gradient scaler."""
        self._unscaled: Any = None
        """What the scaler was given."""
        self.scaler: Any = None
        """The scaler that has multiplied the loss of the next backward pass; None if none has."""

    def scaled(self, scaler: Any, loss: Any, result: Any) -> None:
        """A gradient scaler has multiplied a loss."""
        if result is not loss:
            self.scaler, self._unscaled, self._scaled = scaler, loss, result

    def read(self, tensors: Any) -> Any | None:
        """The loss that `tensors` are: the sum of the scalars among them. None if there is none."""
        if isinstance(tensors, (tuple, list)):
            return self._sum([self._read_one(each) for each in tensors])
        return self._read_one(tensors)

    @staticmethod
    def _sum(losses: list[Any]) -> Any | None:
        total = None
        for loss in losses:
            if loss is not None:
                total = loss if total is None else total + loss
        return total

    def _read_one(self, tensor: Any) -> Any | None:
        if tensor.numel() != 1:
            return None
        if self.scaler is None:
            return value_of(tensor)
        return self._read_scaled(tensor)

    def _read_scaled(self, tensor: Any) -> Any:
        """The loss before scaling. If the script divided the scaled loss afterwards, so is the result."""
        scaler, scaled, unscaled = self.scaler, self._scaled, self._unscaled
        self.scaler = self._scaled = self._unscaled = None
        if tensor is scaled:
            return value_of(unscaled)
        return value_of(tensor.detach() / scaler._scale)


def value_of(tensor: Any) -> Any:
    """A number if the tensor is on the CPU, else a detached tensor on its device."""
    if tensor.is_cpu:
        return tensor.item()
    detached = tensor.detach().reshape(())
    return detached.clone() if CUDA_GRAPHS in sys.modules else detached
