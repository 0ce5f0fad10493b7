"""The result of one experiment as rows of characters, for the app and the command line: verdict, pictures, figures.

Never imports a widget.
"""

from __future__ import annotations

from epochtop.engine.lab.catalog import NAMES, find
from epochtop.engine.lab.experiment import Experiment
from epochtop.engine.protocol.experiments import Cell, Verdict
from epochtop.engine.protocol.fields import show
from epochtop.engine.protocol.quantities import format_bytes, format_seconds, plural
from epochtop.tui.cells.canvas import Row
from epochtop.tui.cells.rows import BAD, EMPTY, GOOD, QUIET, STRONG, cut, labeled, row, wrapped
from epochtop.tui.lab.pictures.picture import figures, picture_rows
from epochtop.tui.state.experiment import ExperimentState

BAR = 20
"""Cells of the progress bar."""
PLOT_ROWS = (15, 26)
"""Fewest and most rows of a plot on a page, with its title and legend."""
TRY = ": press x to train the job with it and measure the gain"
REST_ROWS = 4
"""Rows that a plot leaves for the text below it."""


def known(state: ExperimentState) -> Experiment | None:
    """The experiment; None if it is from another version, whose rows and verdict can still be read."""
    return find(state.asked.name) if state.asked.name in NAMES else None


def pictures(state: ExperimentState, width: int, height: int) -> list[Row]:
    """The pictures of the experiment, with plots of `height` rows; computed lines are in the first."""
    experiment = known(state)
    rows: list[Row] = []
    for place, picture in enumerate(experiment.pictures if experiment else ()):
        verdict = state.concluded.verdict if state.concluded and place == 0 else None
        rows += [EMPTY] if rows else []
        rows += picture_rows(picture, state.rows, verdict.lines if verdict else (), width, height)
    return rows


def medians(state: ExperimentState, width: int) -> list[Row]:
    """The figures behind the plots, as tables."""
    experiment = known(state)
    rows: list[Row] = []
    for picture in experiment.pictures if experiment else ():
        lines = figures(picture, state.rows, width)
        if lines:
            rows += [EMPTY, row((f"Figures: {picture.title[:1].lower()}{picture.title[1:]}"[:width], QUIET)), *lines]
    return rows[1:]


def finding(state: ExperimentState, width: int) -> list[Row]:
    """The line `Verdict`, or the reason why there is none."""
    if state.concluded is not None:
        return labeled("Verdict", [state.concluded.verdict.finding], width, STRONG)
    if state.failure:
        lines = [line for line in state.failure.splitlines() if line.strip()]
        return [
            line_row
            for place, line in enumerate(lines)
            for line_row in labeled("" if place else "Failed", [line], width, BAD)
        ]
    return []


def reasons(state: ExperimentState, width: int, hint: str = "") -> list[Row]:
    """The lines `Why` and `Next`, the setting to try with a hint about it, the uncertainty, and what was not seen."""
    if state.concluded is None:
        return labeled("Not seen", state.prepared.cannot_see if state.prepared else (), width)
    verdict = state.concluded.verdict
    return [
        *labeled("Why", verdict.evidence, width),
        *labeled("Next", [verdict.next_step], width),
        *labeled("Setting", [setting(verdict) + hint] if verdict.setting else [], width, GOOD),
        *labeled("Uncertain", [verdict.uncertainty], width),
        *labeled("Not seen", state.concluded.cannot_see, width),
    ]


def setting(verdict: Verdict) -> str:
    """The setting to try as a user types it: `executor=graph`."""
    return ", ".join(f"{name}={value}" for name, value in verdict.setting.items())


def circumstances(state: ExperimentState, width: int) -> list[Row]:
    """The job, the machine, and the extent of the measurement."""
    return labeled("Measured", [" · ".join(filter(None, (_job(state), _machine(state), _extent(state))))], width, QUIET)


def _job(state: ExperimentState) -> str:
    experiment = known(state)
    own = ", ".join(f"{name}={text}" for name, text in state.asked.fields.items() if text)
    if experiment is None or experiment.job is None:
        return own
    base, spec = experiment.job, state.record.spec
    names = ("dataset", "model", "hidden", "batch_size", "optimizer", "executor", "device", "task")
    changed = [f"{name}={show(getattr(spec, name))}" for name in names if getattr(spec, name) != getattr(base, name)]
    return ", ".join(filter(None, (f"{spec.dataset} {spec.model}" if not spec.task else spec.task, *changed[:4], own)))


def _machine(state: ExperimentState) -> str:
    if state.prepared is None:
        return ""
    facts = state.prepared.machine
    parts: list[Cell] = [facts.get("cpu"), _usable(facts), facts.get("gpu"), _torch(facts)]
    return ", ".join(str(part) for part in parts if part)


def _usable(facts: dict[str, Cell]) -> str:
    cpus, memory = facts.get("usable_cpus"), facts.get("memory_bytes")
    words = [plural(cpus, "CPU")] if isinstance(cpus, int) else []
    return ", ".join([*words, *([format_bytes(memory)] if isinstance(memory, int | float) else [])])


def _torch(facts: dict[str, Cell]) -> str:
    return f"torch {facts['torch']}" if facts.get("torch") else ""


def _extent(state: ExperimentState) -> str:
    rows = plural(len(state.rows), "row")
    end = state.concluded
    if end is None:
        return rows
    return f"{rows} in {format_seconds(end.seconds)}{' · quick' if state.asked.quick else ''}{' · stopped' if end.outcome == 'stopped' else ''}"


def progress(state: ExperimentState, width: int, now: float) -> list[Row]:
    """The progress of a running experiment; `now` in Unix seconds."""
    if state.over:
        return []
    if state.prepared is None:
        return [row(("● preparing …", GOOD))]
    budget = state.prepared.budget_s
    spent = max(0, int(now - state.prepared.time))
    share = min(1.0, spent / budget) if budget else 1.0
    full = round(share * BAR)
    of = f" of about {budget:.0f} s" if spent <= budget else ""
    line = f"● measuring {'█' * full}{'░' * (BAR - full)} {spent} s{of}"
    return [row((cut(line, width), GOOD)), *wrapped(state.progress(), width, QUIET, "  ")]


def page(state: ExperimentState, width: int, height: int, now: float, gained: str = "") -> list[Row]:
    """The page of a result: the verdict first, then the plot in the rest of the first `height` rows."""
    head = [*progress(state, width, now), *finding(state, width)]
    least, most = PLOT_ROWS
    plot = max(least, min(most, height - len(head) - REST_ROWS))
    blocks = [
        head,
        pictures(state, width, plot),
        [*reasons(state, width, TRY), *labeled("Gained", [gained] if gained else [], width, GOOD)],
        medians(state, width),
        circumstances(state, width),
    ]
    return [line for block in blocks if block for line in (*block, EMPTY)][:-1]
