"""fp32, tf32, bf16 and fp16 on one job: time of a step, memory at its peak, accuracy after the same training.

Write-ups promise mixed precision to be 1.5 to 2 times as fast with 40 % less memory. Here that is held against what
this machine does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import msgspec

from epochtop.engine.lab.experiment import Experiment, ExperimentContext, Findings, Picture, Row, refused, too_few
from epochtop.engine.lab.instruments import variants
from epochtop.engine.lab.instruments.sampling import threads_kept
from epochtop.engine.lab.statistics import figure, quantity, select, values
from epochtop.engine.protocol.experiments import Verdict
from epochtop.engine.protocol.spec import RunSpec, declared

if TYPE_CHECKING:
    from epochtop.engine.job.workload import Workload
    from epochtop.engine.lab.experiments.precision.training import Training

FULL = "fp32"
WAYS: dict[str, variants.Changes] = {name: {"precision": name} for name in (FULL, "tf32", "bf16", "fp16")}
SPEED_UP, LESS = (1.5, 2.0), 0.4
"""The published claim."""
SEEDS = 3
STEPPING = 0.4
"""Share of the time for steps; the rest is for training."""
JUDGING_S = 1.0
"""That an evaluation may take in any case, also where no time is left."""
HIGHER = ("accuracy", "r2")
"""Metrics that are better when higher. Of others nobody says which way is better, and what is compared are losses of rows
that are held out, by which the engine chooses the best weights too."""


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long each is trained before accuracy is compared."""

    trained: Annotated[
        int,
        declared(
            "epochs of training before accuracies are compared, if time allows", "experiment", "epochs", ge=1, le=10_000
        ),
    ] = 10


# --- measuring ---------------------------------------------------------------------------------------------------


@threads_kept
def measure(bench: ExperimentContext) -> Iterator[Row]:
    """Rows of `kind` memory, step, accuracy, and left_out, which has a reason."""
    for number, device in enumerate(bench.devices):
        left_s = bench.left_s()
        share_s = left_s / (len(bench.devices) - number)
        ends_s = left_s - share_s
        these, left_out = variants.built(bench, device, WAYS)
        yield from left_out
        yield from variants.memory(bench, these, WAYS)
        yield from variants.steps(bench, these, WAYS, share_s * STEPPING)
        names, workload = tuple(these.jobs), these.workload
        del these  # their memory is for those that are trained
        yield from _trained(bench, device, names, workload, ends_s)


def _trained(
    bench: ExperimentContext, device: str, names: Sequence[str], workload: Workload | None, ends_s: float
) -> Iterator[Row]:
    """Accuracies of all precisions after the same number of steps, a seed after the other, while time is left."""
    import torch

    from epochtop.engine.lab.experiments.precision.training import Training, train
    from epochtop.engine.lab.instruments.jobs import job_of

    assert isinstance(bench.fields, Fields)
    threads = torch.get_num_threads()
    steps, took_s = 0, 0.0
    for seed in range(SEEDS):
        if seed and bench.left_s() - ends_s < took_s:
            return
        begun = perf_counter()
        bench.say(f"training {', '.join(names)} on {device}, seed {seed}")
        trainings = {
            name: Training(job_of(bench.spec, device, workload, seed=seed, threads=threads, precision=name))
            for name in names
        }
        per_epoch = trainings[FULL].job.plan.steps_per_epoch
        # the first seed has its share, one more being for evaluations; the others are trained as far as it came
        until_s = ends_s if seed else bench.left_s() - (bench.left_s() - ends_s) / (SEEDS + 1)
        wanted = steps or bench.fields.trained * per_epoch
        steps = train(bench, trainings.values(), wanted, until_s)
        if seed and steps < wanted:
            return
        labels: Row = {"kind": "accuracy", "device": device, "round": seed, "steps": steps, "epochs": steps / per_epoch}
        yield from ({**labels, **row} for row in _judged(bench, trainings))
        took_s = perf_counter() - begun


def _judged(bench: ExperimentContext, trainings: dict[str, Training]) -> Iterator[Row]:
    """Losses and headline metrics, without those that would take too long to find."""
    full_s = 0.0
    for name, training in trainings.items():
        bench.check()
        expected_s = full_s * training.seconds / trainings[FULL].seconds
        if expected_s > max(JUDGING_S, bench.left_s()):
            rows, where = len(training.job.eval_batches), training.job.device
            unseen = f"the accuracy of {name} on {where}: there was no time to evaluate {rows:,} rows with it"
            bench.cannot_see += [unseen] if unseen not in bench.cannot_see else []
            continue
        begun = perf_counter()
        loss, score = training.judged()
        full_s = full_s or perf_counter() - begun
        yield {"way": name, "metric": training.job.evaluator.metrics.main, "score": score, "loss": loss}


# --- concluding --------------------------------------------------------------------------------------------------


def conclude(found: Findings) -> Verdict:
    """Which precision is faster, lighter and as accurate, and what of the claim holds."""
    device = next((name for name in reversed(found.devices) if _reduced(found.rows, name)), None)
    if device is None:
        why = variants.refused(found.rows, found.devices, [way for way in WAYS if way != FULL])
        return refused(why) if why else too_few("steps of fp32 and of another precision")
    pairs = [variants.pair(found.rows, device, way, FULL) for way in _reduced(found.rows, device)]
    best = _best(pairs, found.rows)
    return Verdict(
        finding="; ".join(_claim(each) for each in pairs),
        evidence=(
            *filter(None, (variants.step_words(found.rows, device, way) for way in WAYS)),
            *(f"{device}: {each.time_words()}; {each.memory_words()}" for each in pairs),
            *_accuracies(found.rows, device),
            *variants.left_out(found.rows),
        ),
        next_step=_next_step(pairs, found.rows, best),
        uncertainty=(
            f"{variants.quartiles_apart(found.rows, 'times of one precision')}, and accuracies from seed to seed"
            f"{_cut_short(found, device)}; larger models gain more where the hardware has units for 16 bits"
        ),
        setting={"precision": best.way} if best is not None else {},
    )


def _reduced(rows: Sequence[Row], device: str) -> list[str]:
    """Precisions that were measured beside fp32."""
    pairs = [variants.pair(rows, device, way, FULL) for way in WAYS if way != FULL]
    return [each.way for each in pairs if each.time is not None]


def _claim(each: variants.Pair) -> str:
    """Both halves of the published claim against what was measured of one precision."""
    assert each.time is not None
    ratio = each.time.ratio.median
    if not each.compared:
        fast = f"{each.way} and {each.other} were compared too seldom to tell which is faster"
    elif not each.time.distinct:
        fast = f"no difference in speed between {each.way} and {each.other}"
    elif ratio >= 1:
        fast = f"{each.way} is {ratio:.3g} × slower than {each.other}"
    else:
        holds = "as claimed" if 1 / ratio >= SPEED_UP[0] else f"less than the claimed {SPEED_UP[0]:g} ×"
        fast = f"{each.way} is {1 / ratio:.3g} × as fast as {each.other}, {holds}"
    return f"on {each.device} {fast}{_memory_claim(each)}"


def _memory_claim(each: variants.Pair) -> str:
    memory = each.memory_ratio
    if memory is None:
        return "; memory was not measured"
    if memory >= 1 or not each.saves:
        return f", and needs {memory:.3g} × its memory"
    less = 1 - memory
    return f", and needs {less:.0%} less memory, {'as claimed' if less >= LESS else f'not the claimed {LESS:.0%}'}"


def _cut_short(found: Findings, device: str) -> str:
    """What of the training that was asked for there was no time for."""
    epochs = values(select(found.rows, kind="accuracy", device=device), "epochs")
    if not isinstance(found.fields, Fields) or not epochs or min(epochs) >= found.fields.trained:
        return ""
    return f", after {_epochs(min(epochs))} of the {found.fields.trained:,} asked for, since there was no time for more"


def _epochs(many: float) -> str:
    return f"{quantity(many) if many % 1 else f'{many:,.0f}'} epoch{'s' * (many != 1)}"


def _accuracies(rows: Sequence[Row], device: str) -> list[str]:
    told = []
    for way in WAYS:
        mine = select(rows, kind="accuracy", device=device, way=way)
        metric = str(mine[0].get("metric") or "") if mine else ""
        for name, column in ((metric, "score"), ("" if metric in HIGHER else "loss", "loss")):
            scores = values(mine, column)
            if not name or not scores:
                continue
            found, steps, epochs = figure(scores), values(mine, "steps"), values(mine, "epochs")
            after = f" after {steps[0]:,.0f} steps, {_epochs(epochs[0])}" if steps and epochs else ""
            spread = f"{found.low:.4f} … {found.high:.4f}" if found.count > 1 else "once"
            told.append(f"{device}: {name} of {way}{after}: {found.median:.4f} ({spread})")
    return told


def _next_step(pairs: Sequence[variants.Pair], rows: Sequence[Row], best: variants.Pair | None) -> str:
    if best is not None:
        return f"train with precision={best.way}: it is faster and no less accurate here"
    faster = [each.way for each in _faster(pairs) if not _trained_enough(rows, each.device)]
    if faster:
        return f"train a run with precision={faster[0]} and one with {FULL}: it is faster, and accuracy was not seen for long enough"
    return f"stay with {FULL}: nothing that is as accurate is distinctly faster here"


def _faster(pairs: Sequence[variants.Pair]) -> list[variants.Pair]:
    """Those that are distinctly faster than fp32, the fastest first."""
    found = [(each.time.ratio.median, each) for each in pairs if each.time is not None and each.time.distinct]
    return [each for ratio, each in sorted(found, key=lambda one: one[0]) if ratio < 1]


def _best(pairs: Sequence[variants.Pair], rows: Sequence[Row]) -> variants.Pair | None:
    """The fastest of those that are distinctly faster than fp32, and whose accuracy is not below its by more than the spread."""
    return next((each for each in _faster(pairs) if _as_accurate(rows, each)), None)


def _trained_enough(rows: Sequence[Row], device: str) -> bool:
    """Whether each seed has seen every row at least once; before, all are as accurate as a model that knows nothing."""
    epochs = values(select(rows, kind="accuracy", device=device), "epochs")
    return bool(epochs) and min(epochs) >= 1


def _as_accurate(rows: Sequence[Row], each: variants.Pair) -> bool:
    """Whether it is not worse by more than the spread over seeds, which one seed does not have."""
    if not _trained_enough(rows, each.device):
        return False
    ours, full = (select(rows, kind="accuracy", device=each.device, way=way) for way in (each.way, FULL))
    both = (*ours, *full)
    higher = all(row.get("metric") in HIGHER for row in both)
    scores = [values(side, "score" if higher else "loss") for side in (ours, full)]
    as_far = len({row.get("steps") for row in both}) == 1
    if not as_far or min(map(len, scores)) < 2 or sum(map(len, scores)) < len(both):
        return False
    found, wanted = map(figure, scores)
    worse = wanted.median - found.median if higher else found.median - wanted.median
    return worse <= max(found.spread, wanted.spread)


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
