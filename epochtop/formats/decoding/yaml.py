"""The part of YAML that loggers write for settings: nested mappings, lists and scalars in block style.

Anything else becomes text or is left out; nothing is constructed from tags. Imports the standard library only.
"""

from __future__ import annotations

import json
import re
from typing import Any

_NULLS = {"", "null", "~", "Null", "NULL"}
_TRUE, _FALSE = {"true", "True", "TRUE", "yes", "on"}, {"false", "False", "FALSE", "no", "off"}
_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?")
_SPECIAL = {".nan": "NaN", ".inf": "Infinity", "-.inf": "-Infinity"}


def parse(source: str) -> dict[str, Any]:
    """The values of a mapping by name; nested names are joined with `/`. Lines that are not understood are left out."""
    values: dict[str, Any] = {}
    parents: list[tuple[int, str]] = []
    """Indentation and name of the mappings around the present line."""
    for line in source.splitlines():
        entry = line.strip()
        if not entry or entry.startswith(("#", "---", "...")):
            continue
        indent = len(line) - len(line.lstrip(" "))
        dash = entry == "-" or entry.startswith("- ")
        name, rest = _split(entry[1:].strip() if dash else entry)
        while parents and (parents[-1][0] > indent or (parents[-1][0] == indent and not dash)):
            parents.pop()
        if dash:
            _append(values, "/".join(parent for _, parent in parents), rest if name is None else f"{name}: {rest}")
        elif name is not None and len(parents) < 64:
            parents.append((indent, name))
            path = "/".join(parent for _, parent in parents)
            if rest and not rest.startswith("#"):
                values[path] = scalar(rest)
            elif not rest:
                values.setdefault(path, None)
    return {path: value for path, value in values.items() if not (value is None and _has_children(values, path))}


def _split(entry: str) -> tuple[str | None, str]:
    """The name and the value of an entry; None as the name if the entry is only a value."""
    if entry[:1] in "\"'":
        end = entry.find(f"{entry[:1]}:", 1)
        if end > 0:
            return _unquoted(entry[: end + 1]), entry[end + 2 :].strip()
        return None, entry
    if entry.startswith(("[", "{", "&", "*", "!", "|", ">", "%", "@", "`")):
        return None, entry
    name, colon, rest = entry.partition(": ")
    if colon:
        return name.strip(), rest.strip()
    return (entry[:-1].strip(), "") if entry.endswith(":") else (None, entry)


def _has_children(values: dict[str, Any], path: str) -> bool:
    return any(other.startswith(f"{path}/") for other in values)


def _append(values: dict[str, Any], path: str, text: str) -> None:
    """Add an item to the list at `path`."""
    if not path:
        return
    items = values.get(path)
    if not isinstance(items, list):
        items = values[path] = []
    items.append(scalar(text))


def scalar(text: str) -> Any:
    """The value of a scalar, or of a list in JSON's style; text that is nothing else stays text."""
    text = text.strip()
    if text[:1] not in "\"'[{":
        text = text.partition(" #")[0].strip()
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if text.lower() in _SPECIAL:
        return _SPECIAL[text.lower()]
    if _NUMBER.fullmatch(text) and len(text) < 100:
        digits = text.replace("_", "")
        return int(digits) if re.fullmatch(r"[-+]?\d+", digits) else float(digits)
    if text[0] in "[{" and len(text) < 65_536:
        return _flow(text)
    return _unquoted(text)


def _flow(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if text.startswith("[") and text.endswith("]") and not re.search(r"[\[\]{}]", text[1:-1]):
            return [scalar(item) for item in text[1:-1].split(",") if item.strip()]
        return text


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return str(json.loads(text))
        except ValueError:
            return text[1:-1]
    return text
