"""An unchanged script under `epochtop run`, next to the same script alone: speed, and CPU time per step that hooks add.

Rounds alternate between the two, so that a busy machine slows both.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.tables import Figure, middle, show

ROUNDS = 9
STEPS = 4000
LOOP = """\
import json, sys, time, torch
from torch import nn
torch.manual_seed(0); torch.set_num_threads(1)
rows, labels = torch.randn(120, 4), torch.arange(120) % 3
net = nn.Sequential(nn.Linear(4, 10), nn.Tanh(), nn.Linear(10, 3))
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
def train(steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(rows), labels)
        loss.backward()
        optimizer.step()
train(500)
steps = int(sys.argv[1])
clocks = (time.perf_counter, time.thread_time, time.process_time)
began = [clock() for clock in clocks]
train(steps)
print(json.dumps([(clock() - start) / steps * 1e6 for clock, start in zip(clocks, began)]))
"""
"""An Iris-like loop; prints microseconds per step on the clock, of CPU time of the loop's thread, and of the process."""

ALONE = """
import json, time, torch
from types import SimpleNamespace
from torch.optim.optimizer import _global_optimizer_post_hooks
from epochtop.hooks.start import _hooks
from epochtop.recording.series import Numbering, logged
from epochtop.recording.values.usual_steps import UsualSteps
from epochtop.recording.json_text import encode_line
loss = torch.zeros((), requires_grad=True)
optimizer = torch.optim.SGD([loss], lr=0.1)
def nothing(tensors, grad_tensors=None, retain_graph=None, create_graph=False, grad_variables=None, inputs=None): pass
module = SimpleNamespace(backward=nothing)
_hooks[0]._torch.patch_autograd(module)
(after_step,) = _global_optimizer_post_hooks.values()
STEPS = 370
def steps():
    for _ in range(STEPS):
        module.backward(loss)
        after_step(optimizer, (), {})
numbering, numbers = Numbering(), [float(number) for number in range(2 * STEPS)]
numbering.rows([UsualSteps("train/loss", "time/step_ms", 0, 0.0)])
def write():
    b"".join(map(encode_line, logged(numbering.usual_columns(numbers), 1.0, 1.0)))
def best(work):
    times = []
    for _ in range(60):
        began = time.thread_time()
        work()
        times.append((time.thread_time() - began) / STEPS * 1e6)
        time.sleep(0.02)
    return min(times)
print(json.dumps([best(steps), best(write)]))
"""
"""Prints the least CPU time per step of the hooks alone, and of the writer for the rows of 0.1 s, in microseconds. Code and data are in
the caches of the processor then, so other processes hardly matter."""

SWITCHED_ROUNDS = 100
SWITCHED = (
    LOOP.partition("train(500)")[0]
    + """
from torch.optim.optimizer import _global_optimizer_post_hooks as hooks
hooked, hook = torch.autograd.backward, dict(hooks)
def switch(on):
    torch.autograd.backward = hooked if on else hooked.__wrapped__
    hooks.update(hook) if on else hooks.clear()
def timed(on):
    switch(on)
    train(5)
    began = [clock() for clock in clocks]
    train(75)
    return [clock() - start for clock, start in zip(clocks, began)]
clocks = time.perf_counter, time.process_time
train(500)
rounds = [[timed(on) for on in (False, True, True, False)] for _ in range(int(sys.argv[1]))]
speeds = [[(a[place] + d[place]) / (b[place] + c[place]) for place in (0, 1)] for a, b, c, d in rounds]
print(json.dumps(speeds))
"""
)
"""The same loop without and with hooks, in turn within one process: prints speeds by round, on the clock and of CPU time."""


def alone(home: Path) -> list[float]:
    """Microseconds per step of the hooks and of the writer."""
    environment = {**os.environ, "EPOCHTOP_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "epochtop", "run", "--plain", sys.executable, "-c", ALONE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [float(time_us) for time_us in json.loads(done.stdout)]


def switched(home: Path) -> list[list[float]]:
    """Speeds with hooks relative to those without, in one process: on the clock, and of CPU time of the process."""
    environment = {**os.environ, "EPOCHTOP_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "epochtop", "run", "--plain", sys.executable, "-c", SWITCHED]
    done = subprocess.run([*command, str(SWITCHED_ROUNDS)], capture_output=True, text=True, check=True, env=environment)
    return [list(speeds) for speeds in zip(*json.loads(done.stdout), strict=True)]


def measure(home: Path, *, hooked: bool) -> list[float]:
    """Microseconds per step: on the clock, of CPU time of the loop's thread, and of the process."""
    epochtop = [sys.executable, "-P", "-m", "epochtop", "run", "--plain"] if hooked else []
    environment = {**os.environ, "EPOCHTOP_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [*epochtop, sys.executable, "-c", LOOP, str(STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [float(time_us) for time_us in json.loads(done.stdout)]


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        hooks_us, writer_us = alone(Path(folder))
        clock, cpu = switched(Path(folder))
        pairs = [(measure(Path(folder), hooked=False), measure(Path(folder), hooked=True)) for _ in range(ROUNDS)]
    speed, _, process = ([bare[place] / hooked[place] for bare, hooked in pairs] for place in range(3))
    extra = [hooked[1] - bare[1] for bare, hooked in pairs]
    show(
        "unchanged script under `epochtop run`",
        [
            Figure("speed with hooks relative to that without, in turn in one process", middle(clock), "≥ 0.97"),
            Figure("  the same in CPU time of the process, with the writer's thread", middle(cpu)),
            Figure("speed relative to the script alone, in processes of their own", middle(speed), "≥ 0.97"),
            Figure("  the same in CPU time of the process, with the writer's thread", middle(process)),
            Figure("CPU time per step that hooks add to the loop's thread, µs", middle(extra, "{:.1f}"), "≤ 3"),
            Figure("  least CPU time per step: hooks; writer, µs", f"{hooks_us:.2f}; {writer_us:.2f}"),
            Figure("step of the script alone, µs", f"{statistics.median(bare[0] for bare, _ in pairs):.0f}"),
            Figure("  CPU time", f"{statistics.median(bare[1] for bare, _ in pairs):.0f}"),
        ],
    )


if __name__ == "__main__":
    main()
