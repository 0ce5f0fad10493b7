"""Figures in the lines that a command prints: `epoch 3 loss: 0.69`, `{'loss': 0.5, 'epoch': 1.0}`, tqdm's postfix.

Conservative: a line counts only if it names a known metric and either counts something (an epoch, a step, a position in a
progress bar) or consists of metrics alone. Ordinary text yields nothing. Standard library only.
"""

from __future__ import annotations

import ast
import math
import re
from typing import NamedTuple

LONGEST_LINE = 2_000
"""Characters; longer lines are not progress."""

STRONG = ("loss", "accuracy", "acc", "perplexity", "ppl")
"""Words that show by themselves that a line is progress."""
METRICS = (
    *STRONG,
    *("lr", "learning_rate", "f1", "f1_score", "auc", "auroc", "mse", "rmse", "mae", "r2", "nll", "elbo", "kl", "bpc", "bpb"),
    *("precision", "recall", "iou", "miou", "dice", "map", "psnr", "ssim", "bleu", "rouge", "wer", "cer", "fid", "top1", "top5"),
    *("reward", "return", "entropy", "grad_norm", "error", "err", "score"),
)  # fmt: skip
"""Words that end the name of a metric."""

NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf)"
_WORD = r"(?:(?:train|training|val|valid|validation|test|eval|dev|avg|average|mean|running)[ _/.-]?)?"
_NAME = rf"(?<![\w/.-])({_WORD}(?:[A-Za-z][A-Za-z0-9]*[_/.-])*(?:{'|'.join(METRICS)}))"
_END = r"(?=$|[\s,;|\])}%])"
PAIR = re.compile(rf"{_NAME}\s*(?:\(\w+\))?\s*[:=]\s*({NUMBER}){_END}", re.IGNORECASE)
"""A metric and its number: `val_loss: 0.5`, `loss=0.5`."""
SPACED = re.compile(rf"{_NAME}\s*(?:[:=]\s*|\s)({NUMBER}){_END}", re.IGNORECASE)
"""The same with a blank alone, accepted in lines that count something: `loss 0.5`."""
STEP = re.compile(
    r"(?<![\w/.-])(?:global[ _]?step|step|iteration|iter|it|update)s?\s*[:=#]?\s*\[?\(?\s*(\d+)", re.IGNORECASE
)
EPOCH = re.compile(r"(?<![\w/.-])epochs?\s*[:=#]?\s*\[?\(?\s*(\d+)(?!\.\d)(?:\s*/\s*(\d+))?", re.IGNORECASE)
BAR = re.compile(r"(?<![\w/.])(\d+)/(\d+)\s*(?:\[\d+:\d\d|[━─=>.\x1b\[]{2})")
"""The position in a progress bar of tqdm or Keras."""
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class Printed(NamedTuple):
    """What one line says."""

    values: dict[str, float]
    """Number by the name of its metric, in lower case."""
    step: int | None
    """Step that the line names; None if it names none."""


def parse(line: str) -> Printed | None:
    """The figures in one printed line, without its newline; None if it is not progress."""
    if not 0 < len(line) <= LONGEST_LINE:
        return None
    text = ESCAPE.sub("", line).strip()
    if text.startswith("{") and text.endswith("}"):
        return _parse_mapping(text)
    counts = bool(STEP.search(text) or EPOCH.search(text) or BAR.search(text))
    pattern = SPACED if counts else PAIR
    values = {_name(match[1]): float(match[2]) for match in pattern.finditer(text)}
    if not values or (not counts and (_rest(text) or not _has_strong(values))):
        return None
    return Printed(values, _step(text))


def _parse_mapping(text: str) -> Printed | None:
    try:
        mapping = ast.literal_eval(re.sub(r"\bnan\b|\bNaN\b|\bnull\b", "None", text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping):
        return None
    values = {name: number for name, value in mapping.items() if (number := _number(value)) is not None}
    if not _has_strong(values):
        return None
    step = next((int(values.pop(name)) for name in ("global_step", "step", "iteration") if name in values), None)
    return Printed(values, step)


def _number(value: object) -> float | None:
    if isinstance(value, str) and re.fullmatch(NUMBER, value):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _has_strong(values: dict[str, float]) -> bool:
    return any(re.split(r"[_/.-]", name.lower())[-1] in STRONG for name in values)


def _name(name: str) -> str:
    return re.sub(r"\s+", "_", name.lower())


def _rest(text: str) -> str:
    """What a line holds besides metrics and punctuation."""
    return re.sub(r"[\s,;|/\-–—·()\[\]{}%]+", "", PAIR.sub("", text))


def _step(text: str) -> int | None:
    step, epoch, bar = STEP.search(text), EPOCH.search(text), BAR.search(text)
    if epoch and bar and bar.start() > epoch.end():
        return int(epoch[1]) * int(bar[2]) + int(bar[1])
    if epoch and step:
        length = re.match(r"\s*/\s*(\d+)", text[step.end() :])
        return int(epoch[1]) * int(length[1]) + int(step[1]) if length else int(step[1])
    counter = step or epoch
    return int(counter[1]) if counter else None
