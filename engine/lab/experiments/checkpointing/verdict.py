"""The verdict of `checkpointing`: the memory saved, and the time it costs.

Pure, and imports no torch.
"""

from __future__ import annotations

from epochtop.engine.lab import pairs
from epochtop.engine.lab.experiment import Findings, refused, too_few
from epochtop.engine.lab.experiments.checkpointing.schema import AGAIN, KEPT, VARIANTS, Gradients
from epochtop.engine.lab.measurements import of_kind
from epochtop.engine.lab.statistics import select, values
from epochtop.engine.protocol.experiments import Verdict

TOLERANCE = 1e-5
"""Fraction of the largest gradient of a parameter by which gradients may differ."""
CLEAR = 0.95
"""Fraction of the memory below which a saving is worth its time."""


def conclude(findings: Findings) -> Verdict:
    """What is saved and what it costs; a setting if memory is saved."""
    compared = [pairs.pair(findings.rows, device, AGAIN, KEPT) for device in findings.devices]
    compared = [pair for pair in compared if pair.time is not None]
    if not compared:
        reasons = pairs.refused(findings.rows, findings.devices, [AGAIN])
        return refused(reasons) if reasons else too_few("steps of both variants")
    main = compared[-1]
    deviations = values(select(of_kind(findings.rows, Gradients), device=main.device), "deviation")
    deviation = max(deviations, default=None)
    saves = main.saves and (main.memory_ratio or 1.0) <= CLEAR
    same = deviation is not None and deviation <= TOLERANCE
    steps = (pairs.step_words(findings.rows, pair.device, way) for pair in compared for way in VARIANTS)
    return Verdict(
        finding=f"on {main.device}, with activations computed {AGAIN}: {main.memory_words()}; {main.time_words()}",
        evidence=(
            *filter(None, steps),
            *(f"{pair.device}: {pair.memory_words()}" for pair in compared),
            f"{main.device}: {pairs.gradient_words(deviation, TOLERANCE)}",
            *pairs.left_out(findings.rows),
        ),
        next_step=_next_step(main, saves, same),
        uncertainty=(
            f"{pairs.quartiles_apart(findings.rows)}; the saving grows with batch size and depth, while weights, gradients "
            "and optimizer keep their size"
        ),
        estimates=main.estimates(),
        setting={"checkpoint_activations": "yes"} if saves and same else {},
    )


def _next_step(main: pairs.Pair, saves: bool, same: bool) -> str:
    if saves and same:
        return "set checkpoint_activations if your batch does not fit; if it fits, checkpointing only costs time"
    if saves:
        return "leave checkpoint_activations off: the gradients could not be confirmed as equal"
    if main.memory is None:
        return "set checkpoint_activations if your batch does not fit; the saving was not measured here"
    return "leave checkpoint_activations off: it saves too little memory for its time"
