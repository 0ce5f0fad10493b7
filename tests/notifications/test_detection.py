"""Synthetic losses that diverge are reported, and those that do not are not; gaps between steps that are stalls, and others."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from epochtop.notifications.detection import LossWatch, StallWatch, is_loss

STEPS = 8_000
Curve = Callable[[int, random.Random], float]


def verdict(curve: Curve, seed: int) -> tuple[int, str] | None:
    """The step of the window in which a divergence is reported, and what is said."""
    generator, watch = random.Random(seed), LossWatch()
    values = [curve(step, generator) for step in range(STEPS)]
    for first in range(0, STEPS, 37):
        what = watch.add(values[first : first + 37])
        if what:
            return first, what
    return None


def learned(step: int, generator: random.Random) -> float:
    """2.3 to 0.05 with noise."""
    return 2.3 * math.exp(-step / 800) + 0.05 + 0.03 * generator.random()


QUIET: dict[str, Curve] = {
    "white noise": lambda step, generator: 1 + 0.3 * generator.gauss(0, 1),
    "a loss that falls": learned,
    "spikes of single steps": lambda step, generator: learned(step, generator)
    + (generator.random() < 0.02) * 5 * generator.paretovariate(1.0),
    "Cauchy noise": lambda step, generator: math.tan(math.pi * (generator.random() - 0.5)),
    "log-normal noise": lambda step, generator: math.exp(generator.gauss(0, 2)),
    "a constant": lambda step, generator: 0.5,
    "zero, then noise": lambda step, generator: 0.0 if step < 400 else abs(generator.gauss(0, 1)),
    "the drift of a generator": lambda step, generator: 0.7 + 4 * step / STEPS + 0.3 * generator.gauss(0, 1),
    "a value loss that grows with returns": lambda step, generator: (0.1 + (step / 100) ** 1.5) * generator.uniform(1, 1.3),
    "warm restarts": lambda step, generator: (2 if step < 2000 else 1) / (1 + step % 2000 / 300) + 0.02 * generator.random(),
    "overfitting": lambda step, generator: 1 + (step / 4000 - 1) ** 2 * 0.3 + 0.02 * generator.gauss(0, 1),
    "a loss below zero": lambda step, generator: -1000 * (1 - math.exp(-step / 2000)) + 20 * generator.gauss(0, 1),
    "rare events": lambda step, generator: float(generator.random() < 0.1),
    "six powers of ten": lambda step, generator: 10 ** (-6 * step / STEPS) * generator.uniform(1, 1.2),
}  # fmt: skip

DIVERGED: dict[str, Curve] = {
    "jumped": lambda step, generator: learned(step, generator) if step < 4000 else 2e4 * generator.uniform(1, 2),
    "is back": lambda step, generator: learned(step, generator) if step < 4000 else 2.4 + 0.05 * generator.random(),
    "is NaN": lambda step, generator: learned(step, generator) if step < 4000 else math.nan,
    "is infinite": lambda step, generator: learned(step, generator) if step < 4000 else math.inf,
}  # fmt: skip


@pytest.mark.parametrize("name", QUIET)
def test_ordinary_noise_is_not_a_divergence(name: str) -> None:
    assert [verdict(QUIET[name], seed) for seed in range(8)] == [None] * 8


@pytest.mark.parametrize("name", DIVERGED)
def test_a_divergence_is_reported_within_a_hundred_steps(name: str) -> None:
    for seed in range(4):
        report = verdict(DIVERGED[name], seed)
        assert report is not None
        assert report[1].startswith(name)
        assert 4000 - 37 <= report[0] < 4100


def test_a_loss_that_grows_exponentially_is_reported() -> None:
    report = verdict(lambda step, generator: learned(step, generator) * math.exp(max(0, step - 4000) / 200), 0)
    assert report is not None
    assert report[0] > 4000


def test_a_window_of_a_million_values_is_looked_at() -> None:
    watch = LossWatch()
    assert watch.add([1.0 + (step % 7) / 100 for step in range(1_000_000)]) == ""
    assert watch.add([1.0] * 999_999 + [math.nan]) == "is NaN"


def test_finite_values_whose_sum_overflows_are_not_divergence() -> None:
    assert LossWatch().add([1e308] * 30) == ""


@pytest.mark.parametrize("name", ["loss", "train/loss", "val_loss", "Loss", "loss/critic", "eval-loss"])
def test_a_loss_is_known_by_its_name(name: str) -> None:
    assert is_loss(name)


@pytest.mark.parametrize("name", ["accuracy", "lossless", "glossary/size", "learning_rate"])
def test_other_series_are_not_losses(name: str) -> None:
    assert not is_loss(name)


# --- stalls ------------------------------------------------------------------------------------------------


def stepping(*times: float) -> StallWatch:
    watch = StallWatch(factor=10, least_s=300)
    for time in times:
        watch.stepped(time)
    return watch


def test_five_minutes_without_a_step_are_a_stall_and_reported_once() -> None:
    watch = stepping(*range(20))  # the last step is at 19 s
    assert watch.stalled_s(319) is None
    assert watch.stalled_s(320) == 301
    assert watch.stalled_s(1000) is None
    watch.stepped(1001)
    assert watch.stalled_s(1200) is None
    assert watch.stalled_s(1001 + 2 * 982) is None  # the last gap was 982 s
    assert watch.stalled_s(1001 + 2 * 982 + 1) is not None


def test_slow_steps_may_take_ten_times_as_long() -> None:
    watch = stepping(*range(0, 1000, 60))  # the last one is at 960 s
    assert watch.stalled_s(960 + 600) is None
    assert watch.stalled_s(960 + 601) == 601


def test_an_evaluation_that_takes_long_is_not_a_stall_the_next_time() -> None:
    watch = stepping(*range(10), 9 + 280, *range(290, 300))
    assert watch.stalled_s(299 + 560) is None
    assert watch.stalled_s(299 + 561) == 561


def test_the_first_steps_may_compile() -> None:
    assert stepping(0, 1, 2).stalled_s(10_000) is None
    assert StallWatch(10, 300).stalled_s(10_000) is None


def test_a_pause_is_not_a_stall() -> None:
    watch = stepping(*range(20))
    watch.pause()
    assert watch.stalled_s(5000) is None
    watch.resume(5000)
    assert watch.stalled_s(5300) is None
    assert watch.stalled_s(5301) == 301
