"""The configuration and the summary of a run: dictionaries that record what a script sets.

They also accept attributes (`config.lr = 0.1`) and what the `wandb` package accepts. Imports built-in modules only.
"""

from __future__ import annotations

import os

from epochtop.recording.reports import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any
else:
    from _collections_abc import Mapping, Sequence  # loaded by every Python; `collections.abc` takes a millisecond

TEXT_LENGTH = 10_000
"""Most characters of a stored text."""
ITEMS = 1000
"""Most items of a stored list, and of a stored mapping."""
LEVELS = 16
"""Most levels of nesting."""
NAMESPACES = ("Namespace", "SimpleNamespace", "ConfigDict", "FrozenConfigDict")
"""Classes of mappings that do not call themselves mappings: of argparse, types and ml_collections."""
FIELDS = ("__dataclass_fields__", "__attrs_attrs__", "model_fields")
"""Attributes of classes with named fields: data classes, those of attrs and pydantic."""


class Entries(dict):  # type: ignore[type-arg]
    """A dictionary that tells `on_change` what is set. Entries are also attributes."""

    def __init__(self, values: object = None, on_change: Callable[[dict[str, Any]], None] | None = None) -> None:
        dict.__init__(self, entries_of(values))
        object.__setattr__(self, "_on_change", on_change)

    def _record(self, values: dict[str, Any]) -> None:
        on_change = object.__getattribute__(self, "_on_change")
        if on_change is not None and values:
            on_change(flat(values))

    def __setitem__(self, name: str, value: Any) -> None:
        dict.__setitem__(self, name, value)
        self._record({name: value})

    def update(self, values: object = None, /, allow_val_change: bool | None = None, **named: Any) -> None:
        """Set several entries, from a mapping, a namespace or a dataclass."""
        new = {**entries_of(values), **named}
        dict.update(self, new)
        self._record(new)

    def setdefault(self, name: str, value: Any = None) -> Any:
        """The value of an entry, which is set first if it is missing."""
        if name not in self:
            self[name] = value
        return self[name]

    def setdefaults(self, values: object) -> None:
        """Set the entries that are missing."""
        self.update({name: value for name, value in entries_of(values).items() if name not in self})

    def as_dict(self) -> dict[str, Any]:
        """The entries as a plain dictionary."""
        return dict(self)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no entry {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def entries_of(values: object) -> dict[str, Any]:
    """The entries of a mapping, a namespace, a dataclass or an object with attributes; empty for None and other values."""
    if values is None:
        return {}
    if isinstance(values, dict) or hasattr(values, "keys"):
        return {str(name): _entry(values.__getitem__, name) for name in values.keys()}  # type: ignore[index] # noqa: SIM118
    if fields := getattr(type(values), "__dataclass_fields__", None):
        return {name: getattr(values, name) for name in fields}
    if attributes := getattr(type(values), "__attrs_attrs__", None):
        return {each.name: getattr(values, each.name) for each in attributes}
    return {name: value for name, value in getattr(values, "__dict__", {}).items() if not name.startswith("_")}


def _entry(get: Callable[[Any], Any], name: Any) -> Any:
    """An entry of a mapping; None if it has no value, such as a mandatory entry of OmegaConf before it is set."""
    try:
        return get(name)
    except Exception:
        return None


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values by name; names of nested mappings are joined with `/`."""
    into: dict[str, Any] = {}
    _flatten(values, into, "", 0)
    return into


def _flatten(values: Mapping[str, Any], into: dict[str, Any], prefix: str, level: int) -> None:
    for name, value in values.items():
        if len(into) >= ITEMS:
            return
        try:
            nested = entries_of(value) if _is_mapping(value) and level < LEVELS else {}
            if nested:
                _flatten(nested, into, f"{prefix}{name}/", level + 1)
            else:
                into[f"{prefix}{name}"] = plain(value)
        except Exception:  # an object of the script that raises when it is looked at
            into[f"{prefix}{name}"] = describe(value)


def _is_mapping(value: object) -> bool:
    kind = type(value)
    return isinstance(value, Mapping) or kind.__name__ in NAMESPACES or any(hasattr(kind, name) for name in FIELDS)


def plain(value: Any, level: int = 0) -> Any:
    """A value of JSON types that describes `value`. Never reads a device and never prints a large object."""
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if kind is int:
        return value if -(1 << 63) <= value < 1 << 63 else str(value)[:TEXT_LENGTH]
    if isinstance(value, str):
        return str(value)[:TEXT_LENGTH]
    if level < LEVELS:
        if isinstance(value, (Sequence, set, frozenset)) and not isinstance(value, (bytes, bytearray, memoryview)):
            return [plain(item, level + 1) for item, _ in zip(value, range(ITEMS))]
        if _is_mapping(value):
            return {str(name): plain(item, level + 1) for name, item in list(entries_of(value).items())[:ITEMS]}
    return _plain_object(value)


def _plain_object(value: Any) -> Any:
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    if package == "numpy" and getattr(value, "size", 0) == 1:
        return plain(value.item(), LEVELS)
    if package == "torch" and getattr(value, "is_cpu", False) and value.numel() == 1:
        return plain(value.item(), LEVELS)
    if hasattr(kind, "__fspath__"):
        return os.fspath(value)
    if isinstance(value, (int, float)):  # a subclass, such as an IntEnum
        return plain(int(value) if isinstance(value, int) else float(value))
    if hasattr(value, "__qualname__"):  # a function or a class
        return f"{value.__module__}.{value.__qualname__}"
    if (package, kind.__name__) in {
        ("torch", "dtype"),
        ("torch", "device"),
        ("numpy", "dtype"),
    } or package == "datetime":
        return str(value)
    if hasattr(kind, "__members__"):  # an Enum
        return str(value.name)
    return describe(value)
