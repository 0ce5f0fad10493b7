"""The learning rate finder: on parabolas with a known best rate, on curves without a fall, and in complete runs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.series import LEARNING_RATE, windows_of
from epochtop.engine.training.lr_finder import RangeTest, suggest
from tests.support.engines import events, finished, losses, train_here

STEPS = 250
DECADES = 7
QUIET = {"device": "cpu", "threads": 1, "eval_every": 0.0}


def bowl(curvature: float, top: float, noise: float = 0.0) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rates and losses of gradient descent on `curvature / 2 * x²`; the rate rises over seven powers of ten."""
    rates = np.geomspace(top * 10.0**-DECADES, top, STEPS)
    chance = np.random.default_rng(3)
    x, seen = 1.0, []
    for rate in rates:
        seen.append(curvature * (x * x / 2 + noise * chance.normal()))
        x -= rate * curvature * x
    return rates, np.array(seen)


@pytest.mark.parametrize("curvature", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_on_a_parabola_the_rate_is_where_the_loss_falls_fastest(curvature: float, noise: float) -> None:
    """The loss is exp(-2 c S) / 2, where S is the sum of the rates so far, r / ln(ratio): it is steepest where 2 c S = 1."""
    ratio = DECADES * math.log(10) / (STEPS - 1)
    expected = ratio / (2 * curvature)
    suggested = suggest(*bowl(curvature, 1000 / curvature, noise))
    assert suggested is not None
    assert expected / 1.6 < suggested.learning_rate < expected * 1.6
    best, unstable = 1 / curvature, 2 / curvature
    assert suggested.learning_rate < best < suggested.lowest_rate
    assert best / 10 < suggested.tenth_of_lowest < unstable


def test_the_explosion_at_the_end_does_not_change_the_suggestion() -> None:
    rates, seen = bowl(1.0, 1000.0)
    short = seen.copy()
    short[np.argmax(rates > 5) :] = np.nan
    complete, cut = suggest(rates, seen), suggest(rates, short)
    assert complete is not None
    assert cut is not None
    assert complete.learning_rate == pytest.approx(cut.learning_rate, rel=0.1)


@pytest.mark.parametrize(
    "curve",
    [
        np.full(STEPS, 2.0),
        np.linspace(1, 3, STEPS),
        np.concatenate([np.full(STEPS - 20, 2.3), np.geomspace(2.3, 1e6, 20)]),
        np.full(STEPS, np.nan),
        np.array([3.0, 2.0]),
    ],
)
def test_a_curve_that_never_falls_gives_no_suggestion(curve: npt.NDArray[np.float64]) -> None:
    assert suggest(np.geomspace(1e-6, 10, len(curve)), curve) is None


def test_noise_is_not_a_fall() -> None:
    rates = np.geomspace(1e-6, 10, STEPS)
    fooled = [suggest(rates, 1 + 0.3 * np.random.default_rng(seed).normal(size=STEPS)) for seed in range(200)]
    assert sum(suggested is not None for suggested in fooled) <= 2


def test_it_ends_long_before_the_loss_is_not_finite() -> None:
    rates, seen = bowl(1.0, 1000.0)
    test, ended = RangeTest(1000.0, STEPS), None
    for step, loss in enumerate(seen):
        if test.add(np.array([min(loss, 1e30)], dtype=np.float32)):
            ended = step
            break
    assert ended is not None
    assert math.isfinite(seen[ended])
    assert rates[ended] > 2  # below 2 / curvature a bowl does not grow
    assert ended < STEPS - 20


def test_the_result_does_not_depend_on_windows() -> None:
    _, seen = bowl(1.0, 1000.0, 0.02)
    values = np.minimum(seen, 1e30).astype(np.float32)
    one, many = RangeTest(1000.0, STEPS), RangeTest(1000.0, STEPS)
    assert one.add(values) == next(filter(None, (many.add(part) for part in np.array_split(values, 40))), "")
    assert one.suggestion() == many.suggestion()


def test_a_long_test_needs_bounded_memory_and_finds_the_same_rate() -> None:
    steps = 200_000
    rates = np.geomspace(1e-6, 10, steps)
    fall = 2 - 1 / (1 + (0.01 / rates) ** 2)  # steepest over log rate at 0.01
    test = RangeTest(10.0, steps)
    assert not test.add(fall.astype(np.float32))
    assert len(test.rates()) <= 1000
    suggested = test.suggestion()
    assert suggested is not None
    assert suggested.learning_rate == pytest.approx(0.01, rel=0.3)


def test_a_run_suggests_a_rate_that_trains_better_than_its_neighbors(home: Path) -> None:
    common = QUIET | {"dataset": "digits", "hidden": (32,), "batch_size": 64, "seed": 2}
    test = RunSpec(**common, schedule="range_test", learning_rate=10.0, epochs=STEPS, max_steps=STEPS)  # type: ignore[arg-type]
    end = finished(train_here(test, home))
    assert end.outcome == "finished"
    assert end.suggestion is not None
    suggested = end.suggestion.learning_rate
    assert end.advice == f"try learning rate {suggested:g}: the loss fell fastest there"
    final = {}
    for factor in (0.01, 1.0, 30.0):
        spec = RunSpec(**common, learning_rate=suggested * factor, epochs=10)  # type: ignore[arg-type]
        final[factor] = float(np.mean(losses(train_here(spec, home))[-20:]))
    assert final[1.0] < final[0.01] / 3
    assert not final[1.0] > final[30.0] / 3


def test_a_run_that_explodes_is_finished_early_and_not_diverged(home: Path) -> None:
    """A linear model: in a network, units may die and leave the loss at 0 on some processors."""
    spec = RunSpec(
        **QUIET,  # type: ignore[arg-type]
        dataset="regression",
        hidden=(),
        optimizer="sgd",
        schedule="range_test",
        learning_rate=1e6,
        refresh_ms=10,
        executor="eager",
        epochs=5_000,
    )
    run = train_here(spec, home)
    end = finished(run)
    assert end.outcome == "finished"
    assert "times its lowest value" in end.reason or "NaN or infinite" in end.reason
    assert end.steps < 5_000
    assert end.suggestion is not None
    rates = [window.last for window in windows_of(events(run)) if window.name == LEARNING_RATE]
    assert len(rates) > 1
    assert rates == sorted(rates)


def test_without_a_fall_the_run_suggests_nothing(home: Path) -> None:
    spec = RunSpec(**QUIET, schedule="range_test", learning_rate=1e-9, epochs=200)  # type: ignore[arg-type]
    end = finished(train_here(spec, home))
    assert end.suggestion is None
    assert end.advice.startswith("no suggestion")
