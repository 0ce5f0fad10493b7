"""Losses, softmax and their gradients in C, row by row."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from epochtop.engine.execution.c.pointwise import number
from epochtop.engine.execution.c.program import Program, broadcast
from epochtop.engine.execution.c.tape import Call, View
from epochtop.engine.execution.executor import Unsupported

NO_REDUCTION, MEAN, SUM = 0, 1, 2
"""torch's numbers for the reduction of a loss."""


def _rows(x: View, axis: int) -> tuple[int, int]:
    if len(x.sizes) != 2 or axis % 2 != 1 or not x.dense:
        raise Unsupported("its softmax is not over the columns of a table")
    return x.sizes[0], x.sizes[1]


def _log_softmax(program: Program, call: Call) -> None:
    x, axis = call.arguments[:2]
    out = call.results[0]
    rows, wide = _rows(x, axis)
    _rows(out, axis)
    high, sums, powers = program.scratch(rows), program.scratch(rows), program.scratch(rows * wide)
    program.line(
        f"const float *x = {program.pointer(x)}; float *y = {program.pointer(out)};"
        f"float *high = {high}, *sums = {sums}, *powers = {powers};"
        f"for (long i = 0; i < {rows}; i++) {{ float most = x[i * {wide}];"
        f" for (long j = 1; j < {wide}; j++) most = x[i * {wide} + j] > most ? x[i * {wide} + j] : most; high[i] = most;"
        f" for (long j = 0; j < {wide}; j++) y[i * {wide} + j] = x[i * {wide} + j] - most; }}"
        f'_Pragma("GCC ivdep") for (long i = 0; i < {rows * wide}; i++) powers[i] = expf(y[i]);'
        f"for (long i = 0; i < {rows}; i++) {{ float sum = 0;"
        f" for (long j = 0; j < {wide}; j++) sum += powers[i * {wide} + j]; sums[i] = sum; }}"
        f'_Pragma("GCC ivdep") for (long i = 0; i < {rows}; i++) sums[i] = logf(sums[i]);'
        f"for (long i = 0; i < {rows}; i++) for (long j = 0; j < {wide}; j++) y[i * {wide} + j] -= sums[i];"
    )


def _log_softmax_backward(program: Program, call: Call) -> None:
    gradient, y, axis = call.arguments[:3]
    out = call.results[0]
    rows, wide = _rows(y, axis)
    for view in (gradient, out):
        _rows(view, axis)
    program.line(
        f"const float *g = {program.pointer(gradient)}, *y = {program.pointer(y)}; float *out = {program.pointer(out)};"
        f"float *powers = {program.scratch(rows * wide)};"
        f'_Pragma("GCC ivdep") for (long i = 0; i < {rows * wide}; i++) powers[i] = expf(y[i]);'
        f"for (long i = 0; i < {rows}; i++) {{ float sum = 0;"
        f" for (long j = 0; j < {wide}; j++) sum += g[i * {wide} + j];"
        f" for (long j = 0; j < {wide}; j++) out[i * {wide} + j] = g[i * {wide} + j] - powers[i * {wide} + j] * sum; }}"
    )


# --- losses --------------------------------------------------------------------------------------------------


def _weight(program: Program, weight: View | None, label: str) -> str:
    return "1.0f" if weight is None else f"{program.pointer(weight)}[{label} * {weight.strides[0]}]"


def _nll(program: Program, call: Call) -> None:
    """Negative log likelihood: the loss (one value, or one per row) and the total weight."""
    y, labels, weight, reduction, ignored = call.arguments
    rows, wide = _rows(y, 1)
    out, total = (program.pointer(view) for view in call.results)
    accumulate = (
        f"out[i * {call.results[0].strides[0]}] = term;" if reduction == NO_REDUCTION else "sum += term; weights += w;"
    )
    end = {
        NO_REDUCTION: "*total = 0;",
        MEAN: "*out = sum / weights; *total = weights;",
        SUM: "*out = sum; *total = weights;",
    }
    program.line(
        f"float *out = {out}, *total = {total}; const float *y = {program.pointer(y)};"
        f"const int64_t *labels = {program.pointer(labels)}; float sum = 0, weights = 0; (void)sum; (void)weights;"
        f"for (long i = 0; i < {rows}; i++) {{ const int64_t label = labels[i * {labels.strides[0]}];"
        f" const float w = label == {ignored} ? 0 : {_weight(program, weight, 'label')};"
        f" const float term = label == {ignored} ? 0 : -w * y[i * {wide} + label]; {accumulate} }}"
        f"{end[reduction]}"
    )


def _nll_backward(program: Program, call: Call) -> None:
    gradient, y, labels, weight, reduction, ignored, total = call.arguments
    rows, wide = _rows(y, 1)
    _rows(call.results[0], 1)
    row_gradient = f"g[i * {gradient.strides[0]}]" if reduction == NO_REDUCTION else "*g"
    share = f" / *{program.pointer(total)}" if reduction == MEAN else ""
    program.line(
        f"const float *g = {program.pointer(gradient)}; float *out = {program.pointer(call.results[0])};"
        f"const int64_t *labels = {program.pointer(labels)};"
        f"for (long i = 0; i < {rows * wide}; i++) out[i] = 0;"
        f"for (long i = 0; i < {rows}; i++) {{ const int64_t label = labels[i * {labels.strides[0]}];"
        f" if (label != {ignored}) out[i * {wide} + label] = -{_weight(program, weight, 'label')} * {row_gradient}{share}; }}"
    )


def _reduced(program: Program, out: View, inputs: list[View], reduction: int, value: Callable[..., str]) -> None:
    """A loss with one term per value."""
    shape = inputs[0].sizes
    if reduction == NO_REDUCTION:
        program.pointwise(out, inputs, value)
        return
    spread = [broadcast(view, shape) for view in inputs]
    loops = program.loops(shape, spread)
    names = [f"{program.pointer(view)}[{place}]" for view, place in zip(spread, loops.indices, strict=True)]
    share = f" / {prod(shape)}" if reduction == MEAN else ""
    program.line(
        f"float sum = 0; {loops.head} sum += {value(*names)}; {loops.tail} *{program.pointer(out)} = sum{share};"
    )


def _mse(program: Program, call: Call) -> None:
    x, y, reduction = call.arguments
    _reduced(program, call.results[0], [x, y], reduction, lambda x, y: f"(({x} - {y}) * ({x} - {y}))")


def _mse_backward(program: Program, call: Call) -> None:
    gradient, x, y, reduction = call.arguments
    factor = number(2 / prod(x.sizes) if reduction == MEAN else 2.0)
    program.pointwise(call.results[0], [gradient, x, y], lambda g, x, y: f"({factor} * ({x} - {y}) * {g})")


def _bce(program: Program, call: Call) -> None:
    """Binary cross entropy of logits: `max(x, 0) - x y + log(1 + exp(-|x|))`."""
    x, y, weight, positive, reduction = call.arguments
    if weight is not None or positive is not None:
        raise Unsupported("its binary cross entropy has weights")
    _reduced(
        program,
        call.results[0],
        [x, y],
        reduction,
        lambda x, y: f"(({x} < 0 ? 0 : {x}) - {x} * {y} + log1pf(expf(-fabsf({x}))))",
    )


LOSSES = {
    "_log_softmax.default": _log_softmax,
    "_log_softmax_backward_data.default": _log_softmax_backward,
    "nll_loss_forward.default": _nll,
    "nll_loss_backward.default": _nll_backward,
    "mse_loss.default": _mse,
    "mse_loss_backward.default": _mse_backward,
    "binary_cross_entropy_with_logits.default": _bce,
}
"""The code of every supported operator."""
