"""Text that attacks a terminal or a markup parser, and what must never reach a terminal."""

from __future__ import annotations

import unicodedata

MARKUP = (
    "[/INST]",
    "[/data]",
    "d[k=='x']",
    "[rank0]: boom",
    "[bold red]loud[/]",
    "[@click=app.quit]press[/]",
    "[link=https://example.com]here[/link]",
    "trailing \\",
    ":bug: and [",
)
ESCAPES = (
    "\x1b]0;a title\x07",
    "\x1b]8;;https://example.com\x1b\\a link\x1b]8;;\x1b\\",
    "\x1b]52;c;cm0gLXJmIC8=\x07",
    "\x1b[2J\x1b[31mred",
    "\x9b31mC1 red",
    "\x9d52;c;cm0gLXJmIC8=\x9c",
    "user\u202egnp.exe",
    "\u2066isolated\u2069",
    "zero\u200bwidth\u2060joined\ufeff",
    "tags\U000e0041\U000e007f",
    "over\rwritten\x08\x08",
    "\x7fdelete \x00 null",
    "line\u2028separator",
)
HOSTILE = (*MARKUP, *ESCAPES)
EVERYTHING = " ".join(HOSTILE)


def unsafe_characters(text: str) -> set[str]:
    """Characters that control a terminal or cannot be seen, by their Unicode category; newlines and tabs are safe."""
    return {char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - {"\n", "\t"}
