"""What a task's state_dict returns comes back from a checkpoint as it was, or is refused before the run."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.tasks import user_state
from epochtop.engine.tasks.loader import load_task


def stored(state: dict[str, object]) -> object:
    """The state after it has been in a file."""
    return user_state.decode(load(save(user_state.encode(state))))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2**200,
        0.1,
        float("inf"),
        "text",
        [],
        {},
        (1, (2, [3])),
        {1: "a", "dict": {"list": []}, None: 2.5},
        random.Random(4).getstate(),
        np.random.default_rng(4).bit_generator.state,
    ],
)
def test_plain_values_come_back_as_they_were(value: object) -> None:
    assert stored({"value": value}) == {"value": value}


def test_a_generator_continues_from_its_state() -> None:
    generator, copy = np.random.RandomState(4), np.random.RandomState(5)
    state = stored({"numpy": generator.get_state()})
    assert isinstance(state, dict)
    copy.set_state(state["numpy"])
    assert generator.normal(size=5).tolist() == copy.normal(size=5).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.bfloat16])
def test_tensors_and_arrays_come_back_as_copies(dtype: torch.dtype) -> None:
    tensor, array = torch.tensor([[1, 0], [2, 3]]).to(dtype), np.arange(6, dtype=np.float64).reshape(2, 3)
    encoded = user_state.encode({"tensors": [tensor, array], "number": np.float32(0.5)})
    expected = tensor.clone()
    tensor.zero_()
    state = user_state.decode(encoded)
    assert state is not None
    assert torch.equal(state["tensors"][0], expected)
    np.testing.assert_array_equal(state["tensors"][1], array, strict=True)
    assert state["number"] == 0.5


def test_a_checkpoint_without_state_has_none() -> None:
    assert user_state.encode({}) == {}
    assert user_state.decode({"rng.cpu": torch.zeros(1)}) is None


def test_other_values_are_named_with_their_place() -> None:
    with pytest.raises(TypeError, match=r"state_dict\(\)\['queue'\]\[1\] is a value of type set"):
        user_state.encode({"queue": [1, {2}]})


FILE = """
import torch
from epochtop import Task

class Mine(Task):
    calls = 0
{methods}

def make_task():
    x = torch.rand(4, 2)
    return Mine(model=torch.nn.Linear(2, 1), train=(x, x[:, :1]), loss=torch.nn.functional.mse_loss)
"""
BROKEN = {
    "state_dict without load_state_dict": ("    def state_dict(self): return {'a': 1}", "define both"),
    "an object": (
        "    def state_dict(self): return {'a': object()}\n    def load_state_dict(self, state): pass",
        r"state_dict\(\)\['a'\] is a value of type object",
    ),
    "no dict": ("    def state_dict(self): return 3", "it must return a dict"),
    "an error": ("    def state_dict(self): return {'a': self.missing}", r"mine.py, line 7, in state_dict: .*missing"),
    "an error while loading": (
        "    def state_dict(self): return {'a': 1}\n    def load_state_dict(self, state): return state['b']",
        r"mine.py, line 8, in load_state_dict: .*KeyError: 'b'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_state_that_cannot_be_restored_is_refused_before_the_run(case: str, tmp_path: Path) -> None:
    methods, message = BROKEN[case]
    file = tmp_path / "mine.py"
    file.write_text(FILE.format(methods=methods), encoding="utf-8")
    with pytest.raises(Invalid, match=message):
        load_task(f"{file}:make_task")
