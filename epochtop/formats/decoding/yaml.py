"""The part of YAML that loggers write for settings: nested mappings, lists and scalars in block style.

Anything else becomes text or is left out; nothing is constructed from tags. Imports the standard library only.
"""

from __future__ import annotations

import json
import re
from typing import Any

_ENTRY = re.compile(
    r"""( *)(?:(- )\s*)?(?:("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s#'"\[{&*!|>%@`-][^:#]*?|-?\d[^:#]*?)\s*:(?=\s|$))?\s*(.*)"""
)
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
        match = _ENTRY.fullmatch(line.rstrip())
        if match is None or line.lstrip().startswith(("#", "---", "...")) or not line.strip():
            continue
        spaces, dash, name, rest = match.groups()
        indent = len(spaces)
        while parents and (parents[-1][0] > indent or (parents[-1][0] == indent and not dash)):
            parents.pop()
        if dash:
            _append(values, "/".join(parent for _, parent in parents), f"{name}: {rest}" if name else rest)
        elif name is not None and len(parents) < 64:
            parents.append((indent, _unquoted(name)))
            path = "/".join(parent for _, parent in parents)
            if rest and not rest.startswith("#"):
                values[path] = scalar(rest)
            elif not rest:
                values.setdefault(path, None)
    return {path: value for path, value in values.items() if not (value is None and _has_children(values, path))}


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
