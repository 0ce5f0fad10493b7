"""What repeated runs of one experiment say about it. Pure: results in, figures out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from epochtop.engine.lab.repetitions import with_earlier
from epochtop.engine.protocol.experiments import Estimate, Verdict

ENOUGH = 0.9
"""Fraction of the runs whose interval must contain the truth."""
NEUTRAL = {"×": 1.0, "s": 0.0, "%": 0.0}
"""The value of each unit that means no difference."""

Sign = Literal["above", "below", "open"]
"""Where an interval lies: above the neutral value, below it, or around it."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of an experiment."""

    finding: str
    setting: dict[str, str]
    estimates: list[Estimate]
    truth: dict[str, tuple[float, float]] = {}
    """Planted: the least and the most that an estimate may be, by its name."""
    load: float = 0.0
    """Programs that wanted a CPU when it started, the mean of a minute."""

    def after(self, earlier: Sequence[Run]) -> Run:
        """The same run with the intervals that it states if there are earlier results."""
        verdicts = [
            Verdict(finding="", evidence=(), next_step="", uncertainty="", estimates=tuple(run.estimates))
            for run in (self, *earlier)
        ]
        return msgspec.structs.replace(self, estimates=list(with_earlier(verdicts[0], verdicts[1:]).estimates))


@dataclass(frozen=True)
class Repeated:
    """One estimate in all runs."""

    name: str
    unit: str
    median: float
    """The median of all runs."""
    runs: int
    contained: int
    """Runs whose interval contains that median."""
    above: int
    below: int
    open: int
    truth_found: int | None
    """Runs whose interval contains the planted truth; None if none was planted."""
    median_width: float
    """The median width of an interval."""

    @property
    def problems(self) -> list[str]:
        """Sentences on what is wrong."""
        wrong = []
        if self.above and self.below:
            wrong.append(f"{self.name}: {self.above} runs are above, {self.below} below")
        if self.contained < ENOUGH * self.runs:
            wrong.append(f"{self.name}: {self.contained} of {self.runs} intervals contain the median of all runs")
        if self.truth_found is not None and self.truth_found < ENOUGH * self.runs:
            wrong.append(f"{self.name}: {self.truth_found} of {self.runs} intervals contain the planted truth")
        return wrong


@dataclass(frozen=True)
class Judgment:
    """An experiment in all its runs."""

    runs: int
    settings: dict[str, int]
    """Runs by the setting to try, as text; the empty text for none."""
    estimates: list[Repeated]

    @property
    def problems(self) -> list[str]:
        """Sentences on what is wrong; empty if the runs agree."""
        chosen = [setting for setting in self.settings if setting]
        different = [f"different settings: {', '.join(chosen)}"] if len(chosen) > 1 else []
        return different + [problem for one in self.estimates for problem in one.problems]


def sign(estimate: Estimate) -> Sign:
    """What a verdict concludes from an estimate."""
    neutral = NEUTRAL[estimate.unit]
    if estimate.count < 3:
        return "open"
    return "above" if estimate.low > neutral else "below" if estimate.high < neutral else "open"


def judge(runs: Sequence[Run]) -> Judgment:
    """The judgment on at least one run."""
    settings: dict[str, int] = {}
    for run in runs:
        text = ", ".join(f"{name}={value}" for name, value in sorted(run.setting.items()))
        settings[text] = settings.get(text, 0) + 1
    names = dict.fromkeys(one.name for run in runs for one in run.estimates)
    return Judgment(len(runs), settings, [_repeated(name, runs) for name in names])


def _repeated(name: str, runs: Sequence[Run]) -> Repeated:
    pairs = [(one, run.truth.get(name)) for run in runs for one in run.estimates if one.name == name]
    estimates = [one for one, _ in pairs]
    median = statistics.median(one.value for one in estimates)
    signs = [sign(one) for one in estimates]
    planted = [(one, truth) for one, truth in pairs if truth is not None]
    return Repeated(
        name=name,
        unit=estimates[0].unit,
        median=median,
        runs=len(estimates),
        contained=sum(one.low <= median <= one.high for one in estimates),
        above=signs.count("above"),
        below=signs.count("below"),
        open=signs.count("open"),
        truth_found=sum(one.low <= truth[1] and truth[0] <= one.high for one, truth in planted) if planted else None,
        median_width=statistics.median(one.high - one.low for one in estimates),
    )


def decoded(result: dict[str, Any]) -> Run:
    """A run from the output of `epochtop lab NAME --json` or of :mod:`tests.lab.repeatability.planted`."""
    return msgspec.convert({"truth": result.get("truth", {}), **_of_verdict(result["verdict"])}, Run)


def _of_verdict(verdict: dict[str, Any]) -> dict[str, Any]:
    return {name: verdict[name] for name in ("finding", "setting", "estimates")}
