"""What recording costs a script: one call of `log()`, bytes on disk, a new run, and a loop that logs every step.

A call of TensorBoard's writer is measured in the same process, alternating, so that a busy machine slows both. In the loop, every
logger has a process of its own and is compared with the same loop without it. wandb, MLflow and Trackio are measured where they
are installed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

from tests.bench.tables import Figure, middle, show, spread

STARTS = 31
LOOP_ROUNDS = 60

CALLS = """
import json, statistics, sys, time, torch, epochtop
CALLS = 20_000
folder = sys.argv[1]
run = epochtop.Run("calls", folder=folder)
tensor = torch.tensor(0.5)

def one():
    for step in range(CALLS): run.log(loss=0.5)

def three():
    for step in range(CALLS): run.log(loss=0.5, accuracy=0.25, rate=0.125)

def of_tensor():
    for step in range(CALLS): run.log(loss=tensor)

kinds = {"float": one, "three floats": three, "tensor": of_tensor}
try:
    from torch.utils.tensorboard import SummaryWriter
    writer = SummaryWriter(folder + "/tensorboard")
    def of_tensorboard():
        for step in range(CALLS // 10): writer.add_scalar("loss", 0.5, step)
    kinds["TensorBoard"] = of_tensorboard
except ImportError: pass

times = {name: [] for name in kinds}
for round in range(9):
    for name, kind in kinds.items():
        began, used = time.perf_counter(), time.thread_time()
        kind()
        count = CALLS // 10 if name == "TensorBoard" else CALLS
        times[name].append([(time.perf_counter() - began) / count * 1e6, (time.thread_time() - used) / count * 1e6])
        time.sleep(0.3)  # until it is written
print(json.dumps(times))
"""
"""Prints microseconds per call, on the clock and of CPU time of the calling thread, by kind and round."""

BYTES = """
import sys, epochtop
run = epochtop.Run("bytes", folder=sys.argv[1])
for step in range(50_000): run.log(loss=1 / (1 << step % 20))
run.finish()
import os; print(os.path.getsize(run.path + "/events.jsonl") / 50_000)
"""
EMPTY, NEW_RUN = "pass", "import epochtop; run = epochtop.Run('new'); run.log(loss=1.0); run.finish()"

LOOP = """
import json, sys, time, torch
from torch import nn
folder, rounds, logger = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.manual_seed(0); torch.set_num_threads(1)
rows, labels = torch.randn(120, 4), torch.arange(120) % 3
net = nn.Sequential(nn.Linear(4, 10), nn.Tanh(), nn.Linear(10, 3))
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
if logger == "epochtop":
    import epochtop
    run = epochtop.Run("loop", folder=folder)
    def log(loss, step): run.log(loss=loss)
elif logger == "TensorBoard":
    from torch.utils.tensorboard import SummaryWriter
    writer = SummaryWriter(folder + "/tensorboard")
    def log(loss, step): writer.add_scalar("loss", loss, step)
else:
    import wandb
    run = wandb.init(mode="offline", dir=folder, settings=wandb.Settings(silent=True))
    def log(loss, step): run.log({"loss": loss})
def train(log, steps):
    for step in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(rows), labels)
        loss.backward()
        optimizer.step()
        if log is not None: log(loss, step)
train(None, 500)
def timed(log):
    train(log, 5)
    began, used = time.perf_counter(), time.process_time()
    train(log, 100)
    return time.perf_counter() - began, time.process_time() - used
times = []
for round in range(rounds):
    bare, logged, again, last = timed(None), timed(log), timed(log), timed(None)
    times.append([bare[0] + last[0], logged[0] + again[0], bare[1] + last[1], logged[1] + again[1]])
    time.sleep(0.15)  # what is written later than the loop would slow the next one
print(json.dumps(times), flush=True)
"""
"""An Iris-like loop, without logging and with it in turn. Prints seconds on the clock without and with, then of CPU time of the process
without and with, by round. Every logger has a process of its own: the thread of another one would take from its speed."""
LOGGERS = {"epochtop": "epochtop", "TensorBoard": "tensorboard", "wandb": "wandb"}
"""The package of each logger."""


def run(code: str, *arguments: str | Path) -> str:
    """Standard output of a Python program."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines()[-1] if done.stdout else ""


def calls(folder: Path) -> list[Figure]:
    """The cost of one call."""
    times = json.loads(run(CALLS, folder))
    targets = {"float": "≤ 3", "tensor": "≤ 3", "three floats": "≤ 6"}
    figures = []
    for name, rounds in times.items():
        what = f"log() of one {name}" if name in ("float", "tensor") else f"log() of {name}"
        what = "TensorBoard's add_scalar" if name == "TensorBoard" else what
        clock, cpu = ([each[place] for each in rounds] for place in (0, 1))
        figures.append(Figure(f"{what}, µs", spread(clock, "{:.2f}"), targets.get(name, "")))
        figures.append(Figure("  CPU time of the caller, µs", spread(cpu, "{:.2f}")))
    return figures


def new_run(home: Path) -> list[Figure]:
    """What a new run with one value adds to starting Python."""
    os.environ["EPOCHTOP_HOME"] = str(home)
    pairs = [(_milliseconds(EMPTY), _milliseconds(NEW_RUN)) for _ in range(STARTS)]
    clock, cpu = ([recorded[place] - empty[place] for empty, recorded in pairs] for place in (0, 1))
    return [
        Figure("new run and one value, more than starting Python, ms", middle(clock, "{:.2f}"), "≤ 5"),
        Figure("  CPU time, ms", middle(cpu, "{:.2f}")),
    ]


def _milliseconds(code: str) -> tuple[float, float]:
    """Time of a Python process: on the clock, and of CPU."""
    began = perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen([sys.executable, "-P", "-c", code], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return 1e3 * (perf_counter() - began), 1e3 * (usage.ru_utime + usage.ru_stime)


def loop(folder: Path) -> list[Figure]:
    """The speed of a loop that logs every step, relative to no logging."""
    figures = []
    for name, package in LOGGERS.items():
        if find_spec(package) is None:
            continue
        rounds = json.loads(run(LOOP, folder, str(LOOP_ROUNDS), name))
        clock, cpu = ([each[place] / each[place + 1] for each in rounds] for place in (0, 2))
        target = "≥ 0.97" if name == "epochtop" else ""
        figures.append(Figure(f"Iris loop that logs every step, {name}: speed", middle(clock), target))
        figures.append(Figure("  the same in CPU time of the process", middle(cpu)))
        figures.append(
            Figure("  step without logging, µs", f"{1e6 / 200 * statistics.median(each[0] for each in rounds):.0f}")
        )
    return figures


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        others = [other for other in ("wandb", "mlflow", "trackio") if find_spec(other) is not None]
        figures = [
            *calls(folder / "calls"),
            Figure("bytes per value logged at every step", run(BYTES, folder / "bytes"), "≤ 6"),
            *new_run(folder / "new"),
            *loop(folder / "loop"),
        ]
        show(f"recording a script, next to {', '.join(['TensorBoard', *others])}", figures)


if __name__ == "__main__":
    main()
