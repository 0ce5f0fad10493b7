"""`epochtop config`: the path of config.toml, the effective values, and where each comes from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import tyro

from epochtop.configuration.keys import KEYS, Key
from epochtop.configuration.load import Configuration, load
from epochtop.engine.terminal.output import write, write_error, write_json

HIDDEN = "(hidden)"
"""In place of a secret."""


@dataclass(frozen=True)
class Config:
    """Show the configuration: the path of config.toml, the value of every key, and where it comes from."""

    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="print one JSON object")] = False
    theme: Annotated[str, tyro.conf.arg(metavar="NAME", help="the app's flag of the same name")] = ""


def theme_flag(theme: str) -> dict[str, str]:
    """The flags that go before the configuration."""
    return {"theme": theme} if theme else {}


def show_configuration(options: Config) -> int:
    """Print it. Returns the exit status: 1 if something is wrong with the file."""
    configuration = load(theme_flag(options.theme))
    if options.json:
        write_json(msgspec.json.encode(_facts(configuration)))
    else:
        write(_table(configuration))
        report_problems(configuration)
    return int(bool(configuration.problems))


def report_problems(configuration: Configuration) -> None:
    """Write what is wrong to standard error."""
    for problem in configuration.problems:
        write_error(f"epochtop: {problem}\n")


def _value(key: Key, configuration: Configuration) -> Any:
    value = configuration[key.name]
    return HIDDEN if key.is_secret and value else value


def _facts(configuration: Configuration) -> dict[str, Any]:
    values = {key.name: {"value": _value(key, configuration), "from": configuration.sources[key.name]} for key in KEYS}
    exists = os.path.exists(configuration.path)  # noqa: PTH110 - a path of ours is a text
    return {"path": configuration.path, "exists": exists, "values": values, "problems": configuration.problems}


def _table(configuration: Configuration) -> str:
    exists = os.path.exists(configuration.path)  # noqa: PTH110
    head = f"{configuration.path}{'' if exists else ' (does not exist)'}\n\n"
    rows = [(key.name, toml(_value(key, configuration)), _source(key, configuration)) for key in KEYS]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return head + "".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}\n" for name, value, source in rows)


def _source(key: Key, configuration: Configuration) -> str:
    source = configuration.sources[key.name]
    return f"${key.variable}" if source == "environment" else source


def toml(value: Any) -> str:
    """A value as config.toml has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    return f"{value:g}" if isinstance(value, float) else msgspec.json.encode(value).decode()
