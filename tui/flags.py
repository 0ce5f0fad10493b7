"""The command line made from the declaration of a run: every field of RunSpec is a flag.

Values arrive as text and go through :func:`engine.spec.parse`, the same function that the form uses, so that
both say the same about a wrong one.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import tyro

from engine.spec import Field, RunSpec, fields, show, spec_from


def _flag(field: Field) -> tuple[str, Any, Any]:
    metavar = "{" + ",".join(field.choices) + "}" if field.choices else _METAVARS[field.kind]
    unit = f"[{field.unit}] " if field.unit else ""
    about = tyro.conf.arg(help=f"{unit}{field.description}", metavar=metavar)
    if field.kind == "integers":
        default = tuple(str(item) for item in field.default)  # type: ignore[union-attr]
        return field.name, Annotated[tuple[str, ...], about], dataclasses.field(default=default)
    return field.name, Annotated[str, about], dataclasses.field(default=show(field.default))


_METAVARS = {"text": "TEXT", "integer": "INT", "number": "NUMBER", "integers": "INT"}


def spec_flags(name: str, doc: str, options: list[tuple[str, Any, Any]]) -> type:
    """A dataclass with `options` and one flag for each field of RunSpec, for tyro."""
    made = dataclasses.make_dataclass(name, [*options, *map(_flag, fields())], kw_only=True, frozen=True)
    made.__doc__ = doc
    return made


def switch(name: str, text: str) -> tuple[str, Any, Any]:
    """A flag that is off unless it is given."""
    about = tyro.conf.arg(help=text)
    return name, Annotated[tyro.conf.FlagCreatePairsOff[bool], about], dataclasses.field(default=False)


def spec_of(parsed: Any) -> RunSpec:
    """The checked spec in what :func:`spec_flags` parsed. Raises Invalid."""
    texts = {}
    for field in fields():
        value = getattr(parsed, field.name)
        texts[field.name] = ",".join(value) if isinstance(value, tuple) else value
    return spec_from(texts)
