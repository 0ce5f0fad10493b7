"""Which arrays of an archive are rows and labels, by the names that people give them.

A name consists of words, in any case and order: `X_train`, `train_images`, `valLabels`. Never reads an array.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from epochtop.engine.protocol.spec import Invalid

Part = Literal["train", "validation", "test"]
_PARTS: dict[Part, set[str]] = {
    "train": {"train", "training", "tr"},
    "validation": {"val", "valid", "validation", "dev"},
    "test": {"test", "testing", "te"},
}
_ROWS = {
    "x",
    "xs",
    "data",
    "images",
    "image",
    "imgs",
    "features",
    "feature",
    "inputs",
    "input",
    "samples",
    "sequences",
    "series",
}
_LABELS = {"y", "ys", "labels", "label", "targets", "target", "class", "outputs", "output"}
_UNNAMED = {"arr_0": "x", "arr_1": "y"}
"""Names that numpy.savez gives to two arrays without names."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
MOST_LISTED = 12
EXPECTED = "name them x and y, or x_train, y_train, x_val, y_val, x_test and y_test"


@dataclass(frozen=True)
class Pair:
    """Names of the rows and of the labels of one part."""

    part: Part
    x: str
    y: str


def pairs_of(path: Path, shapes: Mapping[str, str]) -> list[Pair]:
    """The pairs for training, validation and test, training first. `shapes` describes each array by its name.

    Raises Invalid, listing the arrays, if there is no training pair, or more than one array for the same role.
    """
    names = _UNNAMED if set(shapes) == set(_UNNAMED) else {}
    roles: dict[tuple[Part, str], list[str]] = {}
    for name in shapes:
        role = _role(names.get(name, name))
        if role is not None:
            roles.setdefault(role, []).append(name)
    pairs = []
    for part in _PARTS:
        x, y = (_only(path, shapes, roles.get((part, kind), []), kind) for kind in ("x", "y"))
        if x and y:
            pairs.append(Pair(part, x, y))
    if not pairs or pairs[0].part != "train":
        raise Invalid("dataset", f"{path} holds {_listing(shapes)}; {EXPECTED}")
    return pairs


def rows_among(path: Path, shapes: Mapping[str, str]) -> str:
    """The only array of rows, whatever its part. Raises Invalid, listing the arrays, if there is none or several."""
    rows = [name for name in shapes if (_role(name) or ("", ""))[1] == "x"] or [*shapes][: 2 - (len(shapes) == 1)]
    exact = [name for name in rows if name.lower() == "x"] or rows
    if len(exact) != 1:
        raise Invalid("", f"{path} holds {_listing(shapes)}; name the rows x and leave other rows out")
    return exact[0]


def _role(name: str) -> tuple[Part, str] | None:
    """The part and `x` or `y`; None for a name with other words."""
    parts: list[Part] = []
    kinds: list[str] = []
    for word in _words(name):
        part = next((part for part, words in _PARTS.items() if word in words), None)
        if part is not None:
            parts.append(part)
        elif word in _ROWS or word in _LABELS:
            kinds.append("x" if word in _ROWS else "y")
        else:
            return None
    if len(parts) > 1 or len(kinds) != 1:
        return None
    return (parts[0] if parts else "train"), kinds[0]


def _words(name: str) -> Iterator[str]:
    """The words of a name in lower case; `Xtrain` has two."""
    every_part = set().union(*_PARTS.values())
    for word in (word.lower() for word in _WORD.findall(name)):
        if word[0] in "xy" and word[1:] in every_part:
            yield word[0]
            word = word[1:]
        yield word


def _only(path: Path, shapes: Mapping[str, str], names: list[str], kind: str) -> str:
    """The single name of a role; empty without one. `x` and `y` themselves come before other names."""
    exact = [name for name in names if name.lower() == kind] or names
    if len(exact) > 1:
        what = "rows" if kind == "x" else "labels"
        raise Invalid(
            "dataset",
            f"{path} holds {_listing(shapes)}: {' and '.join(exact)} may be the {what}; name one of them {kind} and "
            "leave the others out",
        )
    return next(iter(exact), "")


def _listing(shapes: Mapping[str, str]) -> str:
    listed = [f"{name} {shape}" for name, shape in shapes.items()]
    more = f" and {len(listed) - MOST_LISTED} more" if len(listed) > MOST_LISTED else ""
    return (", ".join(listed[:MOST_LISTED]) or "nothing") + more
