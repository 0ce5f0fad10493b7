"""What earlier results of an experiment on this machine add to a verdict: how far runs are apart.

No run can show that by itself: the speed of the processor and the place of threads change more slowly than a run is long.
Pure, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from epochtop.engine.protocol.experiments import Estimate, Verdict
from epochtop.engine.protocol.quantities import format_quantity, plural


def with_earlier(verdict: Verdict, earlier: Sequence[Verdict]) -> Verdict:
    """The verdict with intervals that also span what `earlier` ones, measured under the same conditions, state.

    A sentence of evidence says what these were. The values of this run stay as they are.
    """
    estimates, evidence = [], list(verdict.evidence)
    for estimate in verdict.estimates:
        values = [other.value for one in earlier for other in one.estimates if _same_quantity(other, estimate)]
        if values:
            evidence.append(_sentence(estimate, values))
        low, high = min([estimate.low, *values]), max([estimate.high, *values])
        estimates.append(msgspec.structs.replace(estimate, low=low, high=high))
    return msgspec.structs.replace(verdict, estimates=tuple(estimates), evidence=tuple(evidence))


def _same_quantity(one: Estimate, other: Estimate) -> bool:
    return (one.name, one.unit) == (other.name, other.unit)


def _sentence(estimate: Estimate, values: Sequence[float]) -> str:
    least, most = (format_quantity(value, estimate.unit) for value in (min(values), max(values)))
    amount = least if least == most else f"{least} to {most}"
    return f"{estimate.name}: {amount} in {plural(len(values), 'earlier result')} on this machine"
