"""Values as JSON text, without the `json` package, whose import takes several milliseconds. Imports built-in modules only."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _quote(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join([_ESCAPES.get(letter) or _ascii(letter) for letter in text]) + '"'


def _ascii(letter: str) -> str:
    code = ord(letter)
    if 32 <= code < 127:
        return letter
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 | code >> 10:04x}\\u{0xDC00 | code & 0x3FF:04x}"


def clean_text(text: str) -> str:
    """Text without lone surrogates, which no UTF-8 decoder accepts."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def encode(value: Any) -> str:
    """A value of JSON types as text in ASCII, without spaces. Numbers that are not finite become null.

    Raises TypeError for any other type.
    """
    kind = type(value)
    if kind is str:
        return _quote(clean_text(value))
    if value is None or kind is bool:
        return "null" if value is None else "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is float:
        return repr(value) if value - value == 0.0 else "null"
    if kind is dict:
        return "{" + ",".join([f"{encode(str(name))}:{encode(inner)}" for name, inner in value.items()]) + "}"
    if kind is list or kind is tuple:
        return "[" + ",".join([encode(inner) for inner in value]) + "]"
    raise TypeError(f"{kind.__name__} is not a type of JSON")


def encode_line(event: dict[str, Any]) -> bytes:
    """An event as a line of events.jsonl."""
    return encode(event).encode("ascii") + b"\n"
