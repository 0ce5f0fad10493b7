"""Foreign text made safe for a terminal: characters that control it or cannot be seen become visible escapes.

A name, a note, a class label or an error can hold anything. An escape sequence could set the clipboard or the title, a
bidi override could reorder a line, and a zero-width character could hide in a name. Everything that prints text from a
file or from a user's code goes through this module; files keep the original. Never imports another module of ours.
"""

from __future__ import annotations

import re

_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
"""C0 and C1 without tab and newline."""
_BREAKS = r"\u2028\u2029"
"""Line and paragraph separators."""
_FORMATS = (
    r"\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    r"\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e007f"
)
"""Unicode's format characters (Cf): bidi controls, zero-width characters, tags."""
_INVISIBLE = r"\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0\U000e0100-\U000e01ef"
"""Letters and marks without ink: joiners and fillers, and the variation selectors that can carry hidden data."""
_SURROGATES = r"\ud800-\udfff"
"""Halves of a character, from names that are not UTF-8; no terminal encoding can write them."""

_TEXT = re.compile(f"[{_CONTROLS}{_BREAKS}{_FORMATS}{_INVISIBLE}{_SURROGATES}]")
_LINE = re.compile(f"[\\t\\n{_CONTROLS}{_BREAKS}{_FORMATS}{_INVISIBLE}{_SURROGATES}]")


def plain_text(text: str) -> str:
    """`text` for a terminal. Newlines and tabs stay; other unsafe characters become escapes such as `\\x1b`."""
    if text.isascii() and text.isprintable():
        return text
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return _TEXT.sub(_escaped, text)


def plain_line(text: str) -> str:
    """`text` for one line of a terminal: also newlines and tabs become escapes."""
    if text.isascii() and text.isprintable():
        return text
    return _LINE.sub(_escaped, text)


def masked(text: str) -> str:
    """`text` with `?` in place of each unsafe character, newlines and tabs excepted; the length stays the same."""
    if text.isascii() and text.isprintable():
        return text
    return _TEXT.sub("?", text)


def plain_json(text: str) -> str:
    """JSON with escapes in place of unsafe characters. The data stays the same."""
    if text.isascii() and text.isprintable():
        return text
    return _TEXT.sub(_json_escape, text)


def is_plain(text: str) -> bool:
    """Whether `text` has no unsafe character; newlines and tabs are safe."""
    return (text.isascii() and text.isprintable()) or _TEXT.search(text) is None


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}.get(match[0]) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))
