"""Families: series that share a chart, recognized by the names that training frameworks give them.

`train_loss` and `val_loss` (Lightning), `loss` and `val_loss` (Keras), `loss` and `eval_loss` (Hugging Face), `train/loss`
and `eval/loss` (TensorBoard) are the family `loss`; `x_step` and `x_epoch` are two members of `x`. Pure functions of names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

Role = Literal["train", "validation", "test"]
"""Rows that a series was computed on."""

ROLES: dict[str, Role] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Words of a name that say which rows it is about."""
ORDER: tuple[Role, ...] = ("train", "validation", "test")
NOT_A_SUFFIX = {"global", "optimizer", "optim", "train", "trainer", "num", "max", "total", "current", ""}
"""`global_step` is a name of its own, not the steps of `global`. Neither is a name that ends with `_per_step`."""
LAST_GROUPS = ("optimizer", "time", "system")
"""Groups after all others."""
EPOCHS = ("epoch", "train/epoch")
"""Series that count the epochs of a script."""
COUNTERS = {"epoch", "step", "global_step", "iteration", "iter"}
"""Series that count, which are of interest last."""
COUNTED = frozenset(
    ["tokens", "samples", "examples", "images", "frames", "sequences", "episodes", "timesteps", "flos", "flops", "seen"]
)
"""Words in the names of series that count what was trained on so far, such as `tokens_seen` and `total_flos`."""
RATES = frozenset(["per", "sec", "second", "rate", "speed", "throughput", "loss"])
"""Words in the names of series that are no counts, such as `tokens_per_second`."""

LOWER_IS_BETTER = re.compile(
    r"(loss|err|error|mse|mae|rmse|mape|nll|cross_entropy|perplexity|ppl|bpc|bpb|wer|cer|ter|fid|kid|lpips|brier|ece|eer"
    r"|divergence|kl|distance|seconds|time|ms|latency|bytes)(?![a-z])",
    re.IGNORECASE,
)
"""Words that end a name, or a word in it, of a series whose best value is the lowest."""

_WORD = re.compile(rf"^({'|'.join(ROLES)})(?=[_/.\- ]|$)[_/.\- ]*", re.IGNORECASE)
_SUFFIX = re.compile(r"^(.*?)_(step|epoch)$")


class Place(NamedTuple):
    """Where a series belongs."""

    family: str
    """Name of the family: the name of the series without the words of its role."""
    role: Role | None
    """None if the name does not say; then it counts as train."""
    per: str
    """`step` or `epoch` if the name ends with it, else empty."""

    @property
    def rank(self) -> tuple[int, bool]:
        """The order in a family: train first, then validation and test; of each the one per step first."""
        return ORDER.index(self.role or "train"), self.per == "epoch"


@lru_cache(maxsize=16_384)
def place_of(name: str) -> Place:
    """The family of a series, by its name.

    >>> place_of("val/accuracy")
    Place(family='accuracy', role='validation', per='')
    """
    role: Role | None = None
    parts = []
    for part in name.split("/"):
        rest = part
        match = _WORD.match(part)
        if match and role is None:
            role, rest = ROLES[match[1].lower()], part[match.end() :]
        if rest:
            parts.append(rest)
    family, per = "/".join(parts), ""
    if not family:  # a series named just `val`
        return Place(name, None, "")
    suffix = _SUFFIX.match(family)
    if suffix and suffix[1].rpartition("/")[2] not in NOT_A_SUFFIX and not suffix[1].endswith("_per"):
        family, per = suffix[1], suffix[2]
    return Place(family, role, per)


def members(names: Iterable[str], family: str) -> list[str]:
    """The series of a family, the main one first."""
    return sorted((name for name in names if place_of(name).family == family), key=lambda name: place_of(name).rank)


def labels(names: Iterable[str], family: str) -> dict[str, str]:
    """Short names of the series of a family, by name: the rows they are about, or what distinguishes them."""
    series = members(names, family)
    short = {name: _label(name, alone=len(series) == 1) for name in series}
    counts = Counter(short.values())
    return {name: label if counts[label] == 1 else name for name, label in short.items()}


def _label(name: str, alone: bool) -> str:
    place = place_of(name)
    if place.role is None and alone:
        return name.rpartition("/")[2] or name
    return f"{place.role or 'train'} epoch" if place.per == "epoch" and not alone else place.role or "train"


def families(names: Iterable[str]) -> list[str]:
    """All families: the main one, then the others in the order of their first series, and counters last."""
    order = dict.fromkeys(place_of(name).family for name in names)
    return sorted(order, key=_rank)


def main_family(names: Iterable[str]) -> str:
    """The family that is shown first; empty without series."""
    ordered = families(names)
    return ordered[0] if ordered else ""


def main_series(names: Iterable[str]) -> str:
    """The series that stands for a run: the training loss, if there is one; empty without series."""
    names = list(names)
    family = main_family(names)
    return next(iter(members(names, family)), "")


@lru_cache(maxsize=16_384)
def counts(name: str) -> bool:
    """Whether a series counts what was trained on so far, by its name. Such a series can be the x axis."""
    words = frozenset(re.split(r"[_/.\- ]", name.lower()))
    return bool(words & COUNTED) and not words & RATES


@lru_cache(maxsize=16_384)
def lower_is_better(name: str) -> bool:
    """Whether the lowest value of a series is its best one, by its name; otherwise it is the highest."""
    return LOWER_IS_BETTER.search(name) is not None


@lru_cache(4096)
def _rank(family: str) -> int:
    """The loss first, then other losses, other series, groups in LAST_GROUPS, counters."""
    group, _, rest = family.partition("/")
    last = family.rpartition("/")[2].lower()
    if family.lower() == "loss":
        return 0
    if last in COUNTERS:
        return 5 + len(LAST_GROUPS)
    if rest and group in LAST_GROUPS:
        return 4 + LAST_GROUPS.index(group)
    if last == "loss":
        return 1
    return 2 if "loss" in last else 3
