"""What `log()` accepts as a number, converted at once if that needs no device. Imports built-in modules only."""

from __future__ import annotations

import sys

from epochtop.recording.reports import UnusableError, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from epochtop.recording.values.device import Deferred, DeviceValues, Slot

NAME_LENGTH = 200
"""Longest name of a series, in characters."""
NESTING = 16
"""Most levels of nested dictionaries."""
VALUES = 10_000
"""Most values of one call."""


def flatten(data: Any, into: dict[str, Any], prefix: str = "", level: int = 0) -> None:
    """Add the entries of a mapping to `into`; names of nested ones are joined with `/`. Raises UnusableError."""
    for name, value in data.items():
        path = prefix + (name if type(name) is str else str(name))
        if issubclass(type(value), dict):
            if level == NESTING:
                raise UnusableError(f"nested more than {NESTING} levels deep")
            flatten(value, into, path + "/", level + 1)
        else:
            if len(into) == VALUES:
                raise UnusableError(f"more than {VALUES} values in one call")
            into[path if len(path) <= NAME_LENGTH else path[:NAME_LENGTH]] = value


class Numbers:
    """Converts values by their type; remembers what each type needs."""

    def __init__(self) -> None:
        self._device: DeviceValues | None = None
        self.converters: dict[type, Callable[[Any], float | Slot | Deferred]] = {int: float, bool: float, float: float}
        """Function that converts values of each type that has come so far."""

    def convert(self, value: Any) -> float | Slot | Deferred:
        """A number, or what will be one when its device has computed it.

        Raises UnusableError, or whatever the value's own type raises.
        """
        kind = type(value)
        converter = self.converters.get(kind)
        if converter is None:
            converter = self._find(kind)
            self.converters[kind] = converter
        return converter(value)

    def _find(self, kind: type) -> Callable[[Any], float | Slot | Deferred]:
        torch = sys.modules.get("torch")
        if torch is not None and issubclass(kind, torch.Tensor):
            if hasattr(kind, "full_tensor"):
                return _refuse_sharded
            return self._tensor
        package = kind.__module__.partition(".")[0]
        if package in ("jax", "jaxlib"):
            return _defer
        if package == "tensorflow":
            return _variable if hasattr(kind, "assign") else _defer
        if kind.__module__ == "epochtop.recording.values.device":
            return _unchanged
        if kind.__module__ == "epochtop.recording.values.ignored":
            return _refuse_silently
        if hasattr(kind, "__dlpack_device__") and package != "numpy":
            return _defer
        if issubclass(kind, (str, bytes, bytearray)) or kind is type(None):
            return _refuse
        if hasattr(kind, "item"):
            return _item
        return _real if hasattr(kind, "__float__") or hasattr(kind, "__index__") else _refuse

    def _tensor(self, tensor: Any) -> float | Slot | Deferred:
        if tensor.is_cpu:
            return float(tensor.item())
        if self._device is None:
            from epochtop.recording.values.device import DeviceValues  # most scripts log floats

            self._device = DeviceValues()
        return self._device.put(tensor)


def _item(value: Any) -> float:
    return float(value.item())


def _real(value: Any) -> float:
    return float(value)


def _unchanged(value: Any) -> Any:
    """A value that was converted before."""
    return value


def _defer(value: Any) -> Deferred:
    from epochtop.recording.values.device import Deferred

    return Deferred(value)


def _variable(value: Any) -> Deferred:
    """The present value of a variable, which may change before it is read."""
    return _defer(value.read_value())


def _refuse(value: Any) -> float:
    raise UnusableError(describe(value))


def _refuse_silently(value: Any) -> float:
    raise UnusableError("")


def _refuse_sharded(value: Any) -> float:
    raise UnusableError("a DTensor; log its full_tensor() on every rank")
