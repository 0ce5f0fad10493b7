"""Steps in C: every operator gives torch's result for any memory layout; unsupported operators are named."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from epochtop.engine.execution.c import build
from epochtop.engine.execution.c.graph import CGraph
from epochtop.engine.execution.c.program import program
from epochtop.engine.execution.c.reductions import OPERATORS
from epochtop.engine.execution.c.tape import record
from epochtop.engine.execution.executor import Unsupported
from tests.support.executors import asked, built, reading_of_steps


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def in_c(*functions: Callable[[], Tensor]) -> list[Tensor]:
    """The results of functions without arguments, computed by one C program."""
    results = [torch.full_like(function(), math.nan if function().is_floating_point() else 1) for function in functions]

    def step() -> Tensor:
        for out, function in zip(results, functions, strict=True):
            out.copy_(function())
        return torch.zeros(())

    translated = program(record(step), {}, OPERATORS)
    source = translated.source()
    for out in results:  # discard the results of the recording
        out.zero_()
    places = [tensor.untyped_storage().data_ptr() for tensor in translated.outside]
    room, losses = torch.zeros(translated.room_bytes, dtype=torch.uint8), torch.zeros(1)
    run = build.load(source)
    run.argtypes = [ctypes.c_long, *(ctypes.c_void_p,) * 6]
    run(1, (ctypes.c_void_p * max(1, len(places)))(*places), room.data_ptr(), None, None, None, losses.data_ptr())
    return results


def same(*functions: Callable[[], Tensor], rtol: float = 2e-5, atol: float = 1e-6) -> None:
    """Check that C and torch agree."""
    for number, (actual, function) in enumerate(zip(in_c(*functions), functions, strict=True)):
        torch.testing.assert_close(
            actual, function(), rtol=rtol, atol=atol, equal_nan=True, msg=lambda m, n=number: f"{n}: {m}"
        )


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, Y = numbers(7, 5), numbers(7, 5, seed=1)
FILTER, WEIGHT, BIAS, NARROW = numbers(2, 7, 3), numbers(4, 5), numbers(4), numbers(4, 3)
LABELS = torch.tensor([0, 4, 1, 1, 3, 2, 0])
POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": functional.gelu, "silu": functional.silu,
    "exp": torch.exp, "neg": torch.neg, "abs": torch.abs, "square": torch.square, "reciprocal": torch.reciprocal,
    "log": lambda x: x.abs().log(), "sqrt": lambda x: x.abs().sqrt(), "add": lambda x: x + Y, "rsub": lambda x: 1 - x,
    "sub": lambda x: torch.sub(x, Y, alpha=3), "mul": lambda x: x * Y, "div": lambda x: x / Y, "scalar": lambda x: x * 2.5,
    "row": lambda x: x + Y[0], "column": lambda x: x * Y[:, :1], "one": lambda x: x - Y.sum(), "clamp": lambda x: x.clamp(-0.5, 0.3),
    "clamp below": lambda x: x.clamp(min=0.1), "where": lambda x: torch.where(x > 0, x, Y), "maximum": lambda x: torch.maximum(x, Y),
    "minimum": lambda x: torch.minimum(x, Y), "lerp": lambda x: torch.lerp(x, Y, 0.3), "addcmul": lambda x: torch.addcmul(x, x, Y, value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x, Y, value=0.5), "fill": lambda x: x.masked_fill(x < 0, -3.0), "leaky": lambda x: (x > 0) * x,
    "full": lambda x: torch.full_like(x, math.pi) + x, "in place": lambda x: x.clone().add_(1).mul_(Y), "compare": lambda x: (x >= Y).float(),
}  # fmt: skip


def test_values_are_created_as_in_torch() -> None:
    cases = [(lambda f=function, x=x: f(x)) for function in POINTWISE.values() for x in (X, numbers(5, 7, seed=2).t())]
    same(*cases)


def test_nan_and_infinity_are_preserved() -> None:
    odd = torch.tensor([[math.nan, math.inf, -math.inf, 0.0, 1.0]]).expand(7, 5).contiguous()
    names = ("relu", "tanh", "sigmoid", "exp", "add", "clamp", "maximum", "minimum", "div", "where")
    same(
        *((lambda f=POINTWISE[name]: f(odd)) for name in names),
        lambda: odd.sum(1),
        lambda: torch.log_softmax(odd, 1),
        lambda: odd[:, :4] @ NARROW,
    )


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor = X) -> Callable[[], Tensor]:
    """The gradient of a loss; torch's backward operators are recorded."""

    def computed() -> Tensor:
        x = at.detach().requires_grad_()
        return torch.autograd.grad(loss(x), x)[0]

    return computed


def test_gradients_equal_torch_s() -> None:
    weights = torch.tensor([1.0, 2.0, 0.5, 1.5, 3.0])
    some = torch.where(LABELS == 1, -100, LABELS)
    losses: list[Callable[[Tensor], Tensor]] = [
        *((lambda x, name=name: (POINTWISE[name](x) * Y).sum()) for name in ("relu", "tanh", "sigmoid", "gelu", "silu", "mul", "div")),
        lambda x: functional.cross_entropy(x, LABELS),
        lambda x: functional.cross_entropy(x, LABELS, reduction="sum"),
        lambda x: functional.cross_entropy(x, LABELS, weight=weights),
        lambda x: functional.cross_entropy(x, some),
        lambda x: functional.cross_entropy(x, LABELS, label_smoothing=0.2),
        lambda x: functional.cross_entropy(x, LABELS, weight=weights, label_smoothing=0.2),
        lambda x: functional.mse_loss(x, Y),
        lambda x: functional.mse_loss(x, Y, reduction="sum"),
        lambda x: functional.binary_cross_entropy_with_logits(x[:, 0], (Y[:, 0] > 0).float()),
        lambda x: functional.linear(x, WEIGHT, BIAS).square().mean(),
        lambda x: (x.mean(0) * Y[0]).sum(),
        lambda x: (x[1:6:2, -3:] * Y[1:6:2, -3:]).sum(),
    ]  # fmt: skip
    same(*(gradient(loss) for loss in losses))
    same(*((lambda loss=loss: loss(X)) for loss in losses))


@settings(max_examples=12)
@given(st.lists(st.tuples(*(st.integers(1, 40),) * 3, st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_matrices_of_any_shape_are_multiplied(cases: list[tuple[int, int, int, bool, bool]]) -> None:
    def product(rows: int, wide: int, deep: int, turn_a: bool, turn_b: bool) -> list[Callable[[], Tensor]]:
        a = numbers(deep, rows).t() if turn_a else numbers(rows, deep)
        b = numbers(wide, deep, seed=1).t() if turn_b else numbers(deep, wide, seed=1)
        bias = numbers(wide, seed=2)
        return [lambda: a @ b, lambda: torch.addmm(bias, a, b), lambda: (a @ b).t().contiguous()]

    same(*(function for case in cases for function in product(*case)), rtol=1e-4, atol=1e-4)


@settings(max_examples=12)
@given(st.lists(st.tuples(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.data()), min_size=1, max_size=6))
def test_sums_over_any_axes(cases: list[tuple[list[int], st.DataObject]]) -> None:
    functions: list[Callable[[], Tensor]] = []
    for sizes, data in cases:
        turned = data.draw(st.booleans())
        x = numbers(*sizes)
        x = x.permute(*reversed(range(x.ndim))) if turned else x
        axes = data.draw(st.lists(st.integers(0, x.ndim - 1), min_size=1, unique=True))
        keep = data.draw(st.booleans())
        functions += [lambda x=x, a=axes, k=keep: x.sum(a, keepdim=k), lambda x=x, a=axes, k=keep: x.mean(a, keepdim=k)]
        functions.append(lambda x=x: x.sum() + x.mean())
    same(*functions, rtol=1e-4, atol=1e-5)


def test_row_selection_and_norms() -> None:
    chosen = torch.tensor([6, 0, 0, 3])
    same(
        lambda: (X > 0).sum() / 7,
        lambda: 1 / (X > 0).sum(),
        lambda: (X > 0) + (Y > 0),
        lambda: (X * 0.4).bool(),
        lambda: torch.stack([X[0], Y[0]], dim=-1),
        lambda: ~(X > 0),
        lambda: X.index_select(0, chosen),
        lambda: torch.linalg.vector_norm(X),
        lambda: torch.stack(torch._foreach_norm([X, Y, X[0]])),
        lambda: torch.stack([X[0], Y[0]], dim=1),
        lambda: LABELS.index_select(0, chosen),
    )


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda: torch.fft.fft(X).abs().sum(), "fft"),
        (lambda: (X.bfloat16() + 1).float().sum(), "bfloat16"),
        (lambda: (X.double() @ Y.double().t()).sum().float(), "float64"),
        (lambda: functional.conv1d(X[None], FILTER).sum(), "convolution"),
        (lambda: functional.gelu(X, approximate="tanh").sum(), "tanh"),
        (lambda: torch.linalg.vector_norm(X, dim=1).sum(), "norm"),
        (lambda: (~LABELS).sum().float(), "bits"),
        (lambda: X.clamp(Y).sum(), "tensor"),
    ],
    ids=["fft", "bf16", "float64", "convolution", "gelu", "norm", "bits", "clamp"],
)
def test_unsupported_operators_are_named(step: Callable[[], Tensor], why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        program(record(step), {}, OPERATORS).source()


@pytest.mark.parametrize("most", [1, 7, 10**6])
@pytest.mark.parametrize("fields", [{}, {"batch_size": 50}, {"dropout": 0.4}, {"optimizer": "adam"}], ids=str)
def test_losses_do_not_depend_on_the_steps_per_call(most: int, fields: dict[str, Any]) -> None:
    readings = []
    for limit in (most, 3):
        training = built(asked("graph", **fields))
        graph = CGraph(training)
        graph.build()
        readings.append(reading_of_steps(graph, training, 100, limit).losses)
    assert torch.equal(*readings)


def test_a_program_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHTOP_CACHE", str(tmp_path / "kept"))
    CGraph(built(asked("graph"))).build()
    second = CGraph(built(asked("graph")))
    monkeypatch.setattr(build, "_build", None)  # a call would fail
    second.build()
    assert [path.suffix for path in (tmp_path / "kept" / "graphs").iterdir()] == [".so"]


@pytest.mark.parametrize(
    ("compiler", "why"),
    [("no-such-compiler", "no C compiler was found"), ("false", "does not build it"), ("true", "can be kept neither")],
)
def test_a_compiler_that_fails_is_named(
    compiler: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCHTOP_CACHE", str(tmp_path))
    monkeypatch.setattr(
        build.shutil, "which", lambda name: f"/bin/{name}" if name == compiler != "no-such-compiler" else None
    )
    monkeypatch.setenv("CC", compiler)
    build.compiler.cache_clear()
    try:
        with pytest.raises(Unsupported, match=why):
            CGraph(built(asked("graph"))).build()
        assert not list(tmp_path.rglob("*.part"))
    finally:
        build.compiler.cache_clear()
