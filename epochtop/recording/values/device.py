"""Values that another device computes: copied on the device, read by the writer's thread when the device is done.

`put` only enqueues a copy and never waits. Imports built-in modules only; torch is looked up in `sys.modules`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Slot:
    """A place for one value in a block of device memory."""


class Deferred:
    """An immutable array of another library, read by the writer's thread."""

    __slots__ = ("_array",)

    def __init__(self, array: Any) -> None:
        self._array = array

    @property
    def is_ready(self) -> bool:
        """Whether reading does not wait, as far as the library tells."""
        is_ready = getattr(self._array, "is_ready", None)
        return bool(is_ready()) if callable(is_ready) else True

    def read(self) -> float:
        """The number. Raises whatever the library raises, and TypeError if it is not a real number."""
        array = self._array
        if hasattr(array, "numpy"):
            array = array.numpy()
        return float(array.item())


class DeviceValues:
    """Values of torch's devices other than the CPU."""

    def put(self, tensor: Any) -> Slot | Deferred:
        """Copy a tensor with one element on its device. Raises RuntimeError for any other size."""
        return Deferred(tensor.detach().clone())
