"""Reads `config.toml`: effective values, where each comes from, and what is wrong with the file. Never raises.

Imports built-in modules only; the reader of TOML is imported if there is a file.
"""

from __future__ import annotations

import os

from epochtop.configuration import path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from epochtop.configuration.keys import Key

MOST_BYTES = 1 << 20
"""Most bytes of a file that is read."""


def _keys() -> tuple[Key, ...]:
    """All keys. A script without a file needs none of them, and waits for every import."""
    from epochtop.configuration.keys import KEYS

    return KEYS


class Configuration:
    """Effective values."""

    def __init__(self, path: str) -> None:
        self.path = path
        """Path of the file, whether it exists or not."""
        self.values: dict[str, Any] = {key.name: key.default for key in _keys()}
        """Value of every key."""
        self.sources: dict[str, str] = {key.name: "default" for key in _keys()}
        """Where each value comes from: `default`, `file`, `environment` or `flag`."""
        self.problems: list[str] = []
        """What is wrong, one sentence each."""

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def _take(self, source: str, where: str, settings: Mapping[str, object]) -> None:
        for key in _keys():
            if key.name in settings:
                try:
                    self.values[key.name] = key.accept(settings[key.name])
                    self.sources[key.name] = source
                except ValueError as error:
                    shown = "(hidden)" if key.is_secret else _shown(settings[key.name])
                    self.problems.append(f"{where}: {key.name} is {shown}, but must be {error}")


def load(flags: Mapping[str, object] | None = None) -> Configuration:
    """Read everything: defaults, the file, environment variables, and flags, of which later ones win."""
    configuration = Configuration(path())
    tables = _read(configuration)
    settings = _flat(tables)
    known = {key.name for key in _keys()}
    for name in settings:
        if name not in known:
            configuration.problems.append(f"{_name(configuration)}: there is no key {name}{_suggestion(name)}")
    configuration._take("file", _name(configuration), settings)
    environment = {
        key.name: os.environ[key.variable] for key in _keys() if key.variable and os.environ.get(key.variable)
    }
    configuration._take("environment", "environment", environment)
    configuration._take("flag", "flag", flags or {})
    return configuration


def _read(configuration: Configuration) -> dict[str, Any]:
    from epochtop.configuration.regular import open_regular

    try:
        with os.fdopen(open_regular(configuration.path), "rb") as file:
            content = file.read(MOST_BYTES + 1)
        from epochtop.configuration.toml import parse

        if len(content) > MOST_BYTES:
            raise ValueError("the file is larger than 1 MiB")
        return parse(content.decode("utf-8-sig"))
    except FileNotFoundError:
        if os.environ.get("EPOCHTOP_CONFIG"):
            configuration.problems.append(f"EPOCHTOP_CONFIG: there is no file {configuration.path}")
    except OSError as error:
        configuration.problems.append(f"{configuration.path}: {error.strerror or error}; defaults are used")
    except UnicodeDecodeError:
        configuration.problems.append(f"{_name(configuration)}: the file is not UTF-8; defaults are used")
    except (ValueError, RecursionError) as error:
        configuration.problems.append(f"{_name(configuration)}: {error}; defaults are used")
    return {}


def _name(configuration: Configuration) -> str:
    return os.path.basename(configuration.path)


def _flat(tables: Mapping[str, Any]) -> dict[str, object]:
    """Values by their names with dots. A table where a key expects a value stays a value."""
    tops = {key.name.partition(".")[0] for key in _keys() if "." in key.name}
    flat: dict[str, object] = {}
    for name, value in tables.items():
        if name in tops and isinstance(value, dict):
            flat.update({f"{name}.{inner}": each for inner, each in value.items()})
        else:
            flat[name] = value
    return flat


def _suggestion(name: str) -> str:
    """The known key that is nearest to an unknown one."""
    from difflib import get_close_matches

    names = [*(key.name for key in _keys()), *{key.name.rpartition(".")[0]: 0 for key in _keys() if "." in key.name}]
    last = name.rpartition(".")[2]
    same = [each for each in names if each.rpartition(".")[2] == last]
    by_last = {each.rpartition(".")[2]: each for each in names}
    near = same or get_close_matches(name, names, 1, 0.7) or get_close_matches(last, list(by_last), 1, 0.6)
    return f"; did you mean {by_last.get(near[0], near[0])}?" if near else ""


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
