"""The verdict of `accumulation`: whether the gradients are the same, and what the saved memory costs in time.

Pure, and imports no torch.
"""

from __future__ import annotations

from epochtop.engine.lab import pairs
from epochtop.engine.lab.experiment import Findings, refused, too_few
from epochtop.engine.lab.experiments.accumulation.schema import Gradients, variants_of
from epochtop.engine.lab.measurements import of_kind
from epochtop.engine.lab.statistics import select, value_of
from epochtop.engine.protocol.experiments import Verdict


def conclude(findings: Findings) -> Verdict:
    """Whether both steps are the same step, and what the saved memory costs in time."""
    large, pieces = variants_of(findings.spec, findings.fields)
    gradients = of_kind(findings.rows, Gradients)
    devices = [device for device in findings.devices if select(gradients, device=device)]
    compared = [pairs.pair(findings.rows, device, pieces, large) for device in devices]
    compared = [pair for pair in compared if pair.time is not None]
    if not compared:
        reasons = pairs.refused(findings.rows, findings.devices, [pieces])
        return refused(reasons) if reasons else too_few("steps of both variants")
    main = compared[-1]
    row = select(gradients, device=main.device)[0]
    deviation = value_of(row, "deviation")
    same = deviation is not None and deviation <= row.tolerance
    steps = (pairs.step_words(findings.rows, pair.device, way) for pair in compared for way in (large, pieces))
    return Verdict(
        estimates=main.estimates(),
        finding=(
            f"on {main.device} {pieces} rows give {'the same' if same else 'NOT the same'} gradients as {large}; "
            f"{main.memory_words()}; {main.time_words()}"
        ),
        evidence=(
            f"{main.device}: {pairs.gradient_words(deviation, row.tolerance)}",
            *filter(None, steps),
            *(f"{pair.device}: {pair.memory_words()}" for pair in compared),
            *pairs.left_out(findings.rows),
        ),
        next_step=_next_step(main, same),
        uncertainty=(
            f"{pairs.quartiles_apart(findings.rows)}; batch norm sees the rows of one piece only, and dropout draws for each "
            "piece, so models with them do not take the same steps"
        ),
    )


def _next_step(main: pairs.Pair, same: bool) -> str:
    if not same:
        return "do not accumulate in this job until the reason is clear: a loss that is not a mean over rows does this"
    if main.memory is None:
        return "accumulate if your batch does not fit; the saving was not measured here"
    if not main.saves:
        return "stay with the large batch: accumulating saves no memory here"
    large = "is the same step and faster" if main.slower else "is the same step and not slower"
    return f"accumulate if your batch does not fit; if it fits, the large batch {large}"
