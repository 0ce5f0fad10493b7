"""Flags made from the declaration of a run: every field of RunSpec is a flag.

Values are parsed by :func:`epochtop.engine.protocol.fields.parse`, as in the form, so that both report the same errors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from epochtop.engine.protocol.fields import Field, fields, show, spec_from
from epochtop.engine.protocol.presets import CHOOSERS, preset
from epochtop.engine.protocol.spec import RunSpec, Value
from epochtop.engine.terminal.output import printing

Run = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help="id, start of an id, name, or last")]

ExcelSafe = Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="escape cells that are formulas")]
Trust = Annotated[
    str, tyro.conf.arg(metavar="OWNER", help="execute the custom task of a run that belongs to this other user")
]

_METAVARS = {"text": "TEXT", "integer": "INT", "number": "NUMBER", "integers": "INT"}


def flag(field: Field, default: Value) -> tuple[str, Any, Any]:
    """The flag of a field."""
    if field.kind == "switch":
        return switch(field.name, field.description)
    metavar = "{" + ",".join(field.choices) + "}" if field.choices else _METAVARS[field.kind]
    unit = f"[{field.unit}] " if field.unit else ""
    about = tyro.conf.arg(help=f"{unit}{field.description}", metavar=metavar)
    if field.kind == "integers":
        items = tuple(str(item) for item in default)  # type: ignore[union-attr]
        return field.name, Annotated[tuple[str, ...], about], dataclasses.field(default=items)
    return field.name, Annotated[str, about], dataclasses.field(default=show(default))


def spec_flags(
    name: str,
    doc: str,
    options: list[tuple[str, Any, Any]],
    defaults: RunSpec | None = None,
    without: Sequence[str] = (),
) -> type:
    """A dataclass for tyro: `options`, and a flag for every field of RunSpec except those in `without`."""
    start = defaults or RunSpec()
    flags = [flag(field, getattr(start, field.name)) for field in fields() if field.name not in without]
    options_type = dataclasses.make_dataclass(name, [*options, *flags], kw_only=True, frozen=True)
    options_type.__doc__ = doc
    return options_type


def switch(name: str, text: str) -> tuple[str, Any, Any]:
    """A flag that is off by default."""
    about = tyro.conf.arg(help=text)
    return name, Annotated[tyro.conf.FlagCreatePairsOff[bool], about], dataclasses.field(default=False)


def spec_of(parsed: Any, arguments: Sequence[str], defaults: RunSpec | None = None) -> RunSpec:
    """The checked spec in what :func:`spec_flags` parsed from `arguments`. Raises Invalid.

    Fields without a flag keep the values of `defaults`, or the presets of the dataset and the model.
    """
    typed = {argument[2:].partition("=")[0].replace("-", "_") for argument in arguments if argument.startswith("--")}
    start = defaults or RunSpec()
    texts, free = {}, set()
    for field in fields():
        value = getattr(parsed, field.name, getattr(start, field.name))
        texts[field.name] = ",".join(value) if isinstance(value, tuple) else show(value)
        if field.name not in typed and getattr(start, field.name) == field.default:
            free.add(field.name)
    suits = preset(*(texts[name] for name in CHOOSERS))
    return spec_from(texts | {name: show(value) for name, value in suits.items() if name in free})


def parse_options(kind: Any, name: str, arguments: list[str]) -> Any:
    """The options of the command `name`, empty for the app, as an instance of the dataclass `kind`."""
    return printing(lambda: tyro.cli(kind, prog=f"epochtop {name}".strip(), args=arguments))
