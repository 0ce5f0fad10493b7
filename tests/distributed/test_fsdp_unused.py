"""With sharded weights, a weight that no process uses in a step is skipped, as by torch's optimizers in one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from epochtop.engine.training import checkpoint
from tests.support.engines import Engine, losses, train_here
from tests.support.plain_loop import needs_muon
from tests.tasks.task_files import task_file, task_spec

EXPERTS = """
class Net(nn.Module):
    '''In every third step it uses b and a single number; in the others, only rows with a positive first value do.'''
    def __init__(self):
        super().__init__()
        self.a, self.b, self.never = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)
        self.gate = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
    def forward(self, x):
        out = self.a(x)
        if self.training:
            self.calls += 1
        chosen = x[:, 0] > {threshold}
        if self.calls % 3 == 0 and chosen.any():
            out = out + torch.where(chosen[:, None], self.b(x) * self.gate, 0)
        return out

def make_task():
    return Task(model=Net(), train=(X, Y), test=(X[:20], Y[:20]))
"""
FIELDS = {
    "momentum": {"momentum": 0.9, "weight_decay": 0.1, "clip_norm": 0.5},
    "muon": {"optimizer": "muon", "weight_decay": 0.3, "learning_rate": 0.02},
}

NEEDS_ZEROS = pytest.mark.skipif(
    torch.__version__ < "2.13", reason="before torch 2.13, all ranks must use the same weights"
)


@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.7 or later")
@pytest.mark.parametrize(
    ("fields", "threshold"),
    [pytest.param("momentum", 1.6, marks=NEEDS_ZEROS), pytest.param("muon", -9.0, marks=needs_muon)],
)
def test_sharded_processes_skip_weights_like_one(fields: str, threshold: float, home: Path, tmp_path: Path) -> None:
    """With the higher threshold, in most steps only one of the two processes uses b."""
    torch.set_num_threads(1)
    spec = task_spec(task_file(tmp_path, EXPERTS.replace("{threshold}", str(threshold))), epochs=3, **FIELDS[fields])
    with Engine() as engine:
        more = {"processes": 2, "shard": True, "batch_size": 8}
        run = engine.train(task_spec(spec.task, epochs=3, **FIELDS[fields] | more), home)
        assert engine.wait() == 0
    alone = train_here(spec, home)
    np.testing.assert_allclose(losses(run), losses(alone), rtol=1e-3)
    sharded, single = (checkpoint.read(path, "last")[1] for path in (run, alone))
    for name in (name for name in single if name.startswith("model.") and not name.endswith("calls")):
        torch.testing.assert_close(sharded[name], single[name], rtol=1e-3, atol=1e-5, msg=name)
    torch.manual_seed(spec.seed)
    initial = [torch.nn.Linear(4, 3) for _ in range(3)][2]
    assert torch.equal(sharded["model.never.weight"], initial.weight.detach())
