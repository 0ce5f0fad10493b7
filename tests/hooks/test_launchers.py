"""Python processes that something else starts: a shell script, and the oldest interpreter."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from epochtop import hooks
from tests.recording.scripts import old_python
from tests.support.hooked import hooked

SHELL = """
"$PYTHON" -c 'import epochtop; epochtop.log(loss=2.0); epochtop.log(loss=1.5)'
"$PYTHON" -c 'import epochtop; run = epochtop.Run("night", resume="night"); run.log(loss=1.0)'
"$PYTHON" -c 'import epochtop; run = epochtop.Run("night", resume="night"); run.log(loss=0.5)'
exit 3
"""
"""There is no run to continue at first; then it is the run of the command."""


def test_the_processes_of_a_shell_script_add_to_one_run(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(SHELL)
    result = hooked([script], python="bash", PYTHON=sys.executable)
    assert (result.status, result.output, result.complaints) == (3, "", "")
    assert result.series == {"loss": [(0, 2.0), (1, 1.5), (2, 1.0), (3, 0.5)]}


# --- the oldest Python ----------------------------------------------------------------------------------------

PACKAGES = {
    "torch/__init__.py": "from torch import version",
    "torch/version.py": "__version__ = '2.0.1'",
    "torch/autograd.py": "def backward(tensors):\n    tensors.has_gradients = True",
    "torch/optim/__init__.py": "",
    "torch/optim/optimizer.py": """
import torch
post_hooks = []
def register_optimizer_step_post_hook(hook):
    post_hooks.append(hook)
class Optimizer:
    def __init__(self, lr):
        self.param_groups = [{"lr": lr}]
    def step(self):
        for hook in post_hooks:
            hook(self, (), {})
""",
    "tensorboardX/__init__.py": "",
    "tensorboardX/writer.py": """
class SummaryWriter:
    def add_scalar(self, tag, scalar_value, global_step=None):
        self.last = tag, scalar_value, global_step
""",
}
"""As much of the packages as the hooks touch; the real ones are not installed there."""
TRAINS = """
import torch.autograd
from torch.optim.optimizer import Optimizer
from tensorboardX.writer import SummaryWriter

class Loss:
    is_cpu = True
    def __init__(self, value): self.value = value
    def numel(self): return 1
    def item(self): return self.value

optimizer, writer = Optimizer(lr=0.5), SummaryWriter()
for step in range(20):
    loss = Loss(1 / (step + 1))
    torch.autograd.backward(loss)
    assert loss.has_gradients
    optimizer.step()
    if step % 10 == 0:
        writer.add_scalar("val/accuracy", step / 4, step)
        assert writer.last == ("val/accuracy", step / 4, step)
"""


def test_hooks_record_in_the_oldest_python(home: Path, tmp_path: Path) -> None:
    python = old_python()
    if python is None:
        pytest.skip("there is no Python 3.9 or 3.10 on PATH")
    for name, code in PACKAGES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    result = hooked(["-c", TRAINS], python, PYTHONPATH=str(tmp_path))
    assert (result.status, result.complaints) == (0, "")
    assert result.series["train/loss"] == [(step, 1 / (step + 1)) for step in range(20)]
    assert result.series["optimizer/learning_rate"] == [(0, 0.5)]
    assert result.series["val/accuracy"] == [(0, 0.0), (10, 2.5)]
    assert [step for step, _ in result.series["time/step_ms"]] == list(range(1, 20))
    assert "time/data_wait_percent" not in result.series, "there is no data loader to wait for"


def test_the_modules_of_the_hooks_parse_as_python_3_9() -> None:
    for path in Path(hooks.__path__[0]).rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
