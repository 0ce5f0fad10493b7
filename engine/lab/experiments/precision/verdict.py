"""The verdict of `precision`: which precision is faster, smaller and as accurate, and whether the claim holds.

Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from epochtop.engine.lab import pairs
from epochtop.engine.lab.experiment import Findings, refused, too_few
from epochtop.engine.lab.experiments.precision.schema import FULL, MEMORY_SAVED, SPEED_UP, VARIANTS, Accuracy, Fields
from epochtop.engine.lab.measurements import Measurement, of_kind
from epochtop.engine.lab.pairs import Pair
from epochtop.engine.lab.statistics import figure, select, values
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.quantities import format_quantity

HIGHER_IS_BETTER = ("accuracy", "r2")
"""Metrics that are better when higher. For other metrics the direction is unknown, so losses of held-out rows are
compared instead; the engine chooses the best weights by them too."""


def conclude(findings: Findings) -> Verdict:
    """Which precision to use, and how much of the claim holds."""
    rows = findings.rows
    device = next((name for name in reversed(findings.devices) if _reduced(rows, name)), None)
    if device is None:
        reasons = pairs.refused(rows, findings.devices, [way for way in VARIANTS if way != FULL])
        return refused(reasons) if reasons else too_few("steps of fp32 and of another precision")
    compared = _reduced(rows, device)
    best = _best(compared, rows)
    return Verdict(
        finding="; ".join(map(_claim, compared)),
        evidence=(
            *filter(None, (pairs.step_words(rows, device, way) for way in VARIANTS)),
            *(f"{device}: {pair.time_words()}; {pair.memory_words()}" for pair in compared),
            *_accuracies(rows, device),
            *pairs.left_out(rows),
        ),
        next_step=_next_step(compared, rows, best),
        uncertainty=(
            f"{pairs.quartiles_apart(rows, 'times of one precision')}, and accuracies differ from seed to seed"
            f"{_shortened(findings, device)}; larger models gain more on hardware with units for 16 bits"
        ),
        setting={"precision": best.way} if best is not None else {},
        estimates=tuple(one for pair in compared for one in pair.estimates()),
    )


def _reduced(rows: Sequence[Measurement], device: str) -> list[Pair]:
    """The other precisions that were measured, compared with fp32."""
    compared = [pairs.pair(rows, device, way, FULL) for way in VARIANTS if way != FULL]
    return [pair for pair in compared if pair.time is not None]


def _claim(pair: Pair) -> str:
    """One precision against both halves of the published claim."""
    return f"on {pair.device} {_speed_claim(pair)}{_memory_claim(pair)}"


def _speed_claim(pair: Pair) -> str:
    assert pair.time is not None
    if not pair.compared:
        return f"{pair.way} and {pair.other} have too few rounds to tell which is faster"
    words = pair.time.words(pair.way, pair.other)
    if not pair.time.faster:
        return words
    claimed = 1 / pair.time.ratio.median >= SPEED_UP[0]
    return f"{words}, {'as claimed' if claimed else f'less than the claimed {SPEED_UP[0]:g} ×'}"


def _memory_claim(pair: Pair) -> str:
    ratio = pair.memory_ratio
    if ratio is None:
        return "; memory was not measured"
    if ratio >= 1 or not pair.saves:
        return f", and needs {ratio:.3g} × the memory"
    saved = 1 - ratio
    holds = "as claimed" if saved >= MEMORY_SAVED else f"not the claimed {MEMORY_SAVED:.0%}"
    return f", and needs {saved:.0%} less memory, {holds}"


def _shortened(findings: Findings, device: str) -> str:
    """The part of the requested training that there was no time for."""
    epochs = values(select(of_kind(findings.rows, Accuracy), device=device), "epochs")
    if not isinstance(findings.fields, Fields) or not epochs or min(epochs) >= findings.fields.trained:
        return ""
    return f", after {_epochs(min(epochs))} of the {findings.fields.trained:,} requested, for lack of time"


def _epochs(count: float) -> str:
    return f"{format_quantity(count) if count % 1 else f'{count:,.0f}'} epoch{'s' * (count != 1)}"


def _accuracies(rows: Sequence[Measurement], device: str) -> list[str]:
    sentences = []
    for way in VARIANTS:
        results = select(of_kind(rows, Accuracy), device=device, way=way)
        metric = results[0].metric if results else ""
        for name, column in ((metric, "score"), ("" if metric in HIGHER_IS_BETTER else "loss", "loss")):
            scores = values(results, column)
            if not name or not scores:
                continue
            score, first = figure(scores), results[0]
            spread = f"{score.low:.4f} … {score.high:.4f}" if score.count > 1 else "once"
            after = f"after {first.steps:,} steps, {_epochs(first.epochs)}"
            sentences.append(f"{device}: {name} of {way} {after}: {score.median:.4f} ({spread})")
    return sentences


def _next_step(compared: Sequence[Pair], rows: Sequence[Measurement], best: Pair | None) -> str:
    if best is not None:
        return f"train with precision={best.way}: it is faster and as accurate here"
    unclear = [pair.way for pair in _faster(compared) if not _trained_enough(rows, pair.device)]
    if unclear:
        return f"train one run with precision={unclear[0]} and one with {FULL}: it is faster, but training was too short to compare accuracy"
    return f"stay with {FULL}: no precision that is as accurate is clearly faster here"


def _faster(compared: Sequence[Pair]) -> list[Pair]:
    """Precisions that are distinctly faster than fp32, the fastest first."""
    ratios = [(pair.time.ratio.median, pair) for pair in compared if pair.time is not None and pair.time.faster]
    return [pair for _, pair in sorted(ratios, key=lambda one: one[0])]


def _best(compared: Sequence[Pair], rows: Sequence[Measurement]) -> Pair | None:
    """The fastest precision that is distinctly faster than fp32 and not less accurate by more than the spread."""
    return next((pair for pair in _faster(compared) if _as_accurate(rows, pair)), None)


def _trained_enough(rows: Sequence[Measurement], device: str) -> bool:
    """Whether each seed saw every row at least once; before that, accuracies say nothing."""
    epochs = values(select(of_kind(rows, Accuracy), device=device), "epochs")
    return bool(epochs) and min(epochs) >= 1


def _as_accurate(rows: Sequence[Measurement], pair: Pair) -> bool:
    """Whether it is not worse by more than the spread over seeds, which needs two seeds."""
    if not _trained_enough(rows, pair.device):
        return False
    results = select(of_kind(rows, Accuracy), device=pair.device)
    reduced, full = select(results, way=pair.way), select(results, way=FULL)
    both = (*reduced, *full)
    higher = all(row.metric in HIGHER_IS_BETTER for row in both)
    scores = [values(side, "score" if higher else "loss") for side in (reduced, full)]
    as_far = len({row.steps for row in both}) == 1
    if not as_far or min(map(len, scores)) < 2 or sum(map(len, scores)) < len(both):
        return False
    score, reference = map(figure, scores)
    worse = reference.median - score.median if higher else score.median - reference.median
    return worse <= max(score.spread, reference.spread)
