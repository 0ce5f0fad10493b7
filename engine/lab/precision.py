"""fp32, tf32, bf16 and fp16 on one job: time of a step, memory at its peak, accuracy after the same training.

Write-ups promise mixed precision to be 1.5 to 2 times as fast with 40 % less memory. Here that is held against what
this machine does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec

from engine.experiment import Verdict
from engine.lab import ways
from engine.lab.contract import Bench, Experiment, Findings, Picture, Row, too_few
from engine.lab.figures import Figure, figure, select, values
from engine.lab.sampling import threads_kept
from engine.spec import RunSpec, declared

FULL = "fp32"
WAYS: dict[str, ways.Changes] = {name: {"precision": name} for name in (FULL, "tf32", "bf16", "fp16")}
SPEED_UP, LESS = (1.5, 2.0), 0.4
"""The published claim."""
SEEDS = 3
STEPPING = 0.4
"""Share of the time for steps; the rest is for training."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long each is trained before accuracy is compared."""

    trained: Annotated[
        int, declared("epochs of training before accuracies are compared", "experiment", "epochs", ge=1, le=10_000)
    ] = 10


# --- measuring ---------------------------------------------------------------------------------------------------


@threads_kept
def measure(bench: Bench) -> Iterator[Row]:
    """Rows of `kind` memory, step, accuracy, and left_out, which has a reason."""
    for number, device in enumerate(bench.devices):
        share_s = bench.left_s() / (len(bench.devices) - number)
        ends_s = bench.left_s() - share_s
        these, left_out = ways.built(bench, device, WAYS)
        yield from left_out
        yield from ways.memory(bench, these, WAYS)
        took: list[Row] = []
        for row in ways.steps(bench, these, WAYS, share_s * STEPPING):
            took.append(row)
            yield row
        yield from _trained(bench, these, took, ends_s)


def _trained(bench: Bench, these: ways.Built, took: list[Row], ends_s: float) -> Iterator[Row]:
    """Accuracies of all precisions, a seed after the other, while time is left."""
    epochs = _epochs(bench, these, took, ends_s)
    for seed in range(SEEDS):
        for name in these.jobs:
            if seed and bench.left_s() <= ends_s:
                return
            bench.say(f"training {name} on {these.device}, seed {seed}")
            found = _train(bench, these, name, seed, epochs)
            yield {"kind": "accuracy", "device": these.device, "way": name, "round": seed, "epochs": epochs, **found}


def _epochs(bench: Bench, these: ways.Built, took: list[Row], ends_s: float) -> int:
    """As many as were asked for, if there is time for all precisions and seeds; the same for all of them."""
    assert isinstance(bench.fields, Fields)
    step_s = sum(figure(values(select(took, way=name), "seconds")).median for name in these.jobs)
    job = these.jobs[FULL]
    each_s = SEEDS * step_s * job.plan.steps_per_epoch
    return max(1, min(bench.fields.trained, int(0.9 * (bench.left_s() - ends_s) / each_s)))


def _train(bench: Bench, these: ways.Built, name: str, seed: int, epochs: int) -> Row:
    import torch

    from engine.lab.jobs import job_of

    job = job_of(bench.spec, these.device, these.stuff, seed=seed, threads=torch.get_num_threads(), precision=name)
    for step in range(epochs * job.plan.steps_per_epoch):
        if step % 50 == 0:
            bench.check()
        job.step()
    loss, scores = job.judge.read(job.judge.evaluate(job.model, job.judged, None).cpu())
    return {"metric": job.judge.metrics.main, "score": scores.values.get(job.judge.metrics.main), "loss": loss}


# --- concluding --------------------------------------------------------------------------------------------------


def conclude(found: Findings) -> Verdict:
    """Which precision is faster, lighter and as accurate, and what of the claim holds."""
    device = next((name for name in reversed(found.devices) if _reduced(found.rows, name)), None)
    if device is None:
        return too_few("; ".join(ways.left_out(found.rows)) or "steps of fp32 and of another precision")
    pairs = [ways.pair(found.rows, device, way, FULL) for way in _reduced(found.rows, device)]
    best = _best(pairs, found.rows)
    return Verdict(
        finding="; ".join(_claim(each) for each in pairs),
        evidence=(
            *filter(None, (ways.step_words(found.rows, device, way) for way in WAYS)),
            *(f"{device}: {each.time_words()}; {each.memory_words()}" for each in pairs),
            *_accuracies(found.rows, device),
            *ways.left_out(found.rows),
        ),
        next_step=(
            f"train with precision={best.way}: it is faster and no less accurate here"
            if best is not None
            else f"stay with {FULL}: nothing that is as accurate is distinctly faster here"
        ),
        uncertainty=(
            f"times of one precision differ by up to {ways.widest(found.rows):.0%} between their quartiles, and accuracies "
            "from seed to seed; larger models gain more where the hardware has units for 16 bits"
        ),
        setting={"precision": best.way} if best is not None else {},
    )


def _reduced(rows: Sequence[Row], device: str) -> list[str]:
    """Precisions that were measured beside fp32."""
    pairs = [ways.pair(rows, device, way, FULL) for way in WAYS if way != FULL]
    return [each.way for each in pairs if each.time is not None and each.memory is not None]


def _claim(each: ways.Pair) -> str:
    """Both halves of the published claim against what was measured of one precision."""
    assert each.time is not None
    ratio, memory = each.time.ratio.median, each.memory_ratio or 1.0
    if not each.compared:
        fast = f"{each.way} and {each.other} were compared too seldom to tell which is faster"
    elif not each.time.distinct:
        fast = f"no difference in speed between {each.way} and {each.other}"
    elif ratio >= 1:
        fast = f"{each.way} is {ratio:.3g} × slower than {each.other}"
    else:
        holds = "as claimed" if 1 / ratio >= SPEED_UP[0] else f"less than the claimed {SPEED_UP[0]:g} ×"
        fast = f"{each.way} is {1 / ratio:.3g} × as fast as {each.other}, {holds}"
    less = 1 - memory
    if less <= 0 or not each.saves:
        light = f"and needs {memory:.3g} × its memory"
    else:
        light = f"and needs {less:.0%} less memory, {'as claimed' if less >= LESS else f'not the claimed {LESS:.0%}'}"
    return f"on {each.device} {fast}, {light}"


def _scores(rows: Sequence[Row], device: str, way: str) -> Figure | None:
    found = values(select(rows, kind="accuracy", device=device, way=way), "score")
    return figure(found) if found else None


def _accuracies(rows: Sequence[Row], device: str) -> list[str]:
    told = []
    for way in WAYS:
        mine = select(rows, kind="accuracy", device=device, way=way)
        scores = values(mine, "score")
        if scores:
            found, epochs = figure(scores), values(mine, "epochs")
            after = f" after {epochs[0]:,.0f} epochs" if epochs else ""
            spread = f"{found.low:.4f} … {found.high:.4f}" if found.count > 1 else "once"
            told.append(f"{device}: {mine[0].get('metric')} of {way}{after}: {found.median:.4f} ({spread})")
    return told


def _best(pairs: Sequence[ways.Pair], rows: Sequence[Row]) -> ways.Pair | None:
    """The fastest of those that are distinctly faster than fp32, and whose accuracy is not below its by more than the spread."""
    good = [each for each in pairs if each.time is not None and each.time.distinct and each.time.ratio.median < 1]
    good = [each for each in good if _as_accurate(rows, each)]
    return min(good, key=lambda each: each.time.ratio.median if each.time else 1.0, default=None)


def _as_accurate(rows: Sequence[Row], each: ways.Pair) -> bool:
    """Whether it is not worse by more than the spread over seeds, which one seed does not have."""
    ours, full = (_scores(rows, each.device, way) for way in (each.way, FULL))
    if ours is None or full is None or min(ours.count, full.count) < 2:
        return False
    return full.median - ours.median <= max(ours.spread, full.spread)


EXPERIMENT = Experiment(
    name="precision",
    title="What 16 bits bring",
    measures="time of a step, peak memory, and accuracy after the same training from the same start, three times, with "
    "fp32, tf32, bf16 and fp16",
    why=f"mixed precision is said to be {SPEED_UP[0]:g} to {SPEED_UP[1]:g} times as fast with {LESS:.0%} less memory; it is so "
    "where the hardware has units for it and the job is large enough, and slower where not",
    reading="shorter bars of time and memory are better; accuracy should be the same within its spread",
    pictures=(
        Picture(
            title="Time of a step", kind="bars", y="seconds", series=("device", "way"), unit="s", where={"kind": "step"}
        ),
        Picture(
            title="Memory at its peak",
            kind="bars",
            y="bytes",
            series=("device", "way"),
            unit="B",
            where={"kind": "memory"},
        ),
        Picture(title="Accuracy", kind="bars", y="score", series=("device", "way"), where={"kind": "accuracy"}),
    ),
    measure=measure,
    conclude=conclude,
    fields=Fields,
    job=RunSpec(dataset="digits", hidden=(256, 128), batch_size=64, optimizer="adam", learning_rate=0.001, epochs=40),
)
