"""The fields of a spec, one by one: their descriptions, their values as text, and parsing that text.

The form, the command-line flags and the error messages are built from this. It works for every struct declared like
:class:`~epochtop.engine.protocol.spec.RunSpec`, such as the fields of an experiment. Imports msgspec and the standard
library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, get_args, get_type_hints

import msgspec
import msgspec.inspect

from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import Invalid, RunSpec, Value


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a spec, as the form and the command line show it."""

    name: str
    kind: Literal["text", "integer", "number", "integers", "choice", "switch"]
    default: Value
    description: str
    group: str
    """Section of the form: data, model, training, machine, recording or experiment."""
    unit: str
    """Unit of the value, such as `s`; empty for none."""
    choices: tuple[str, ...] = ()
    """Valid values of a `choice`, in the declared order."""
    expects: str
    """Description of a valid value: "a number above 0"."""


def _bounds(kind: Any) -> str:
    """`above 0`, `from 0 to 1`, `above 0 and up to 1`, `from 0 and below 1`."""
    low, up_to = (f"above {_plain(kind.gt)}", "and up to") if kind.gt is not None else (f"from {_plain(kind.ge)}", "to")
    if kind.lt is not None:
        return f"{low} and below {_plain(kind.lt)}"
    return f"{low} {up_to} {_plain(kind.le)}" if kind.le is not None else low


def _plain(bound: float) -> str:
    return f"{int(bound):,}" if float(bound).is_integer() else f"{bound:g}"


SWITCH = {"yes": True, "on": True, "true": True, "1": True, "no": False, "off": False, "false": False, "0": False}
"""Texts of a switch, in lower case, with their values."""


@cache
def fields(kind: type[msgspec.Struct] = RunSpec) -> tuple[Field, ...]:
    """The fields of `kind` in declared order; every field must be annotated with `declared`."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    hints = get_type_hints(kind)
    return tuple(_describe(field, hints[field.name]) for field in info.fields)


def _describe(field: msgspec.inspect.Field, hint: Any) -> Field:
    meta = field.type
    assert isinstance(meta, msgspec.inspect.Metadata)
    extra, kind = meta.extra or {}, meta.type
    description = (meta.extra_json_schema or {}).get("description", "")
    choices: tuple[str, ...] = ()
    match kind:
        case msgspec.inspect.IntType():
            name, expects = "integer", f"a whole number {_bounds(kind)}"
        case msgspec.inspect.FloatType():
            name, expects = "number", f"a number {_bounds(kind)}"
        case msgspec.inspect.LiteralType():
            choices = get_args(hint)  # msgspec sorts them
            name, expects = "choice", "one of " + ", ".join(choices)
        case msgspec.inspect.VarTupleType():
            name, expects = "integers", "whole numbers from 1, separated by commas"
        case msgspec.inspect.BoolType():
            name, expects = "switch", "yes or no"
        case _:
            name, expects = "text", extra["expects"] or "text"
    return Field(
        name=field.name,
        kind=name,  # type: ignore[arg-type]
        default=field.default,
        description=description,
        group=extra["group"],
        unit=extra["unit"],
        choices=choices,
        expects=expects,
    )


@cache
def field(name: str, kind: type[msgspec.Struct] = RunSpec) -> Field:
    """The field called `name`. Raises Invalid if `kind` has no such field."""
    for candidate in fields(kind):
        if candidate.name == name:
            return candidate
    names = ", ".join(f.name for f in fields(kind))
    raise Invalid("", f"there is no field {name!r}; {f'the fields are {names}' if names else 'there are none'}")


def show(value: Value) -> str:
    """A value as text that :func:`parse` reads back: `(10, 5)` becomes `10, 5`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def parse(name: str, text: str, kind: type[msgspec.Struct] = RunSpec) -> Value:
    """The value that `text` gives field `name`. Raises Invalid, with a description of a valid value."""
    about = field(name, kind)
    text = text.strip()
    try:
        value = _convert(about, text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        msgspec.convert({name: value}, kind)
    except (ValueError, msgspec.ValidationError):
        problem = f"{text!r} is not" if text else "needs"
        raise Invalid(name, f"{problem} {about.expects}{f' ({about.unit})' if about.unit else ''}") from None
    return value


def _convert(about: Field, text: str) -> Value:
    match about.kind:
        case "integer":
            return _integer(text)
        case "number":
            return float(text)
        case "switch":
            return _switch(text)
        case "integers":
            return tuple(_integer(part) for part in text.replace(",", " ").split())
        case _:
            return text


def _switch(text: str) -> bool:
    if text.lower() not in SWITCH:
        raise ValueError(text)
    return SWITCH[text.lower()]


def _integer(text: str) -> int:
    plain = text.replace("_", "").replace(",", "")
    if plain.lstrip("+-").isdigit() and len(plain) < 40:
        return int(plain)
    number = float(plain)  # 1e4 is a whole number too
    if not number.is_integer():
        raise ValueError(text)
    return int(number)


def texts_of(spec: RunSpec) -> dict[str, str]:
    """Every field of `spec` by name, as text."""
    return {about.name: show(getattr(spec, about.name)) for about in fields()}


def with_setting(spec: RunSpec, setting: Mapping[str, str]) -> RunSpec:
    """A copy of `spec` with the fields of `setting` changed; names and values are text. Raises Invalid."""
    return spec_from(texts_of(spec) | dict(setting))


def spec_from(texts: dict[str, str]) -> RunSpec:
    """A checked spec from texts by field name; absent fields keep their defaults. Raises Invalid for the first error."""
    spec = RunSpec(**{name: parse(name, text) for name, text in texts.items()})  # type: ignore[arg-type]
    check(spec)
    return spec
