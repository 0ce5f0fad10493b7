"""The usual spellings of a missing value. Imports nothing."""

from __future__ import annotations

_SPELLINGS = frozenset(
    ("", "na", "n/a", "n.a.", "n.a", "#n/a", "#na", "<na>", "#n/a n/a", "nan", "-nan", "+nan", "null", "none", "nil", "nat",
     "missing", "?", "-", "--", ".", "..", "#value!", "#div/0!", "#ref!", "#num!", "#null!", "#name?", "\\n")
)  # fmt: skip
"""In lower case."""


COMMON = frozenset(form for text in _SPELLINGS for form in (text, text.upper(), text.capitalize(), text.title()))
"""The spellings in the letter cases that programs write, to be looked up at once; others are found by `is_missing_text`."""


def is_missing_text(text: str) -> bool:
    """Whether a cell with this text holds no value."""
    return text.strip().lower() in _SPELLINGS
