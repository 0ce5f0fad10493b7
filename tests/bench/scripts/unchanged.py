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
LOOP = """\
import json, time, torch
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
began, used = time.perf_counter(), time.thread_time()
train(8000)
print(json.dumps([(time.perf_counter() - began) / 8000 * 1e6, (time.thread_time() - used) / 8000 * 1e6]))
"""
"""An Iris-like loop; prints microseconds per step on the clock, and of CPU time of the loop's thread."""


def measure(home: Path, *, hooked: bool) -> tuple[float, float]:
    """Microseconds per step: on the clock, and of CPU time of the loop's thread."""
    epochtop = [sys.executable, "-P", "-m", "epochtop", "run", "--plain"] if hooked else []
    environment = {**os.environ, "EPOCHTOP_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [*epochtop, sys.executable, "-c", LOOP]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    wall_us, cpu_us = json.loads(done.stdout)
    return float(wall_us), float(cpu_us)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = [(measure(Path(folder), hooked=False), measure(Path(folder), hooked=True)) for _ in range(ROUNDS)]
    speeds = [bare[0] / hooked[0] for bare, hooked in pairs]
    costs = [hooked[1] - bare[1] for bare, hooked in pairs]
    show(
        "unchanged script under `epochtop run`",
        [
            Figure("speed relative to the script alone", middle(speeds), "≥ 0.97"),
            Figure("CPU time per step that hooks add, µs", f"{statistics.median(costs):.2f}", "≤ 3"),
            Figure("step of the script alone, µs", f"{statistics.median(bare[0] for bare, _ in pairs):.1f}"),
        ],
    )


if __name__ == "__main__":
    main()
