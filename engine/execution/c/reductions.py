"""Reductions, row selection and matrix products in C."""

from __future__ import annotations

from math import prod

from epochtop.engine.execution.c.losses import LOSSES
from epochtop.engine.execution.c.pointwise import POINTWISE
from epochtop.engine.execution.c.program import TYPES, Program, broadcast, index
from epochtop.engine.execution.c.tape import Call, View
from epochtop.engine.execution.executor import Unsupported

# --- sums ----------------------------------------------------------------------------------------------------


def _total(program: Program, call: Call) -> None:
    """The sum of all values."""
    _sum(program, call.results[0], call.arguments[0], tuple(range(len(call.arguments[0].sizes))))


def _sum_axes(program: Program, call: Call) -> None:
    x = call.arguments[0]
    axes = tuple(axis % len(x.sizes) for axis in call.arguments[1] or range(len(x.sizes))) if x.sizes else ()
    _sum(program, call.results[0], x, axes)


def _mean(program: Program, call: Call) -> None:
    x = call.arguments[0]
    dims = call.arguments[1] if len(call.arguments) > 2 else None  # else the second is the type of the result
    axes = tuple(axis % len(x.sizes) for axis in (dims or range(len(x.sizes)))) if x.sizes else ()
    _sum(program, call.results[0], x, axes, divisor=prod(x.sizes[axis] for axis in axes))


def _sum(program: Program, out: View, x: View, axes: tuple[int, ...], divisor: int = 1) -> None:
    """Sum over axes; the innermost loop runs over contiguous values."""
    kind = TYPES[out.dtype]
    names = [program.name() for _ in x.sizes]
    free = [axis for axis in range(len(x.sizes)) if axis not in axes]
    place = _result_offset(out, free, names)
    loops = {
        axis: f"for (long {names[axis]} = 0; {names[axis]} < {x.sizes[axis]}; {names[axis]}++) {{"
        for axis in range(len(names))
    }
    term = f"{program.pointer(x)}[{index(x.strides, names)}]"
    target = f"{program.pointer(out)}[{place}]"
    share = f" / {divisor}" if divisor != 1 else ""
    inner = max(range(len(names)), key=lambda axis: (x.strides[axis] == 1 and x.sizes[axis] > 1, axis), default=None)
    if inner is None or inner in axes:
        before = " ".join(loops[axis] for axis in free)
        within = " ".join(loops[axis] for axis in axes)
        program.line(
            f"{before} {kind} sum = 0; {within} sum += {term}; {'}' * len(axes)} {target} = sum{share}; {'}' * len(free)}"
        )
        return
    clear = " ".join(loops[axis] for axis in free)
    program.line(f"{clear} {target} = 0; {'}' * len(free)}")
    order = [*axes, *(axis for axis in free if axis != inner), inner]
    nest = " ".join(loops[axis] for axis in order[:-1])
    program.line(f'{nest} _Pragma("GCC ivdep") {loops[inner]} {target} += {term}; {"}" * len(order)}')
    if divisor != 1:
        program.line(f"{clear} {target} /= {divisor}; {'}' * len(free)}")


def _result_offset(out: View, free: list[int], names: list[str]) -> str:
    """Offset in the result, in which reduced axes are missing or have size 1."""
    if len(out.sizes) == len(free):
        return index(out.strides, [names[axis] for axis in free])
    return index([out.strides[axis] for axis in free], [names[axis] for axis in free])


def _norm(program: Program, call: Call) -> None:
    """Euclidean norm of all values."""
    x, order = call.arguments[:2]
    if order not in (2, 2.0) or call.results[0].count != 1:
        raise Unsupported("its norm is not the Euclidean norm of all values")
    names = [program.name() for _ in x.sizes]
    loops = " ".join(f"for (long {n} = 0; {n} < {size}; {n}++) {{" for n, size in zip(names, x.sizes, strict=True))
    value = f"{program.pointer(x)}[{index(x.strides, names)}]"
    out = program.pointer(call.results[0])
    program.line(f"float sum = 0; {loops} sum += {value} * {value}; {'}' * len(names)} *{out} = sqrtf(sum);")


def _each_norm(program: Program, call: Call) -> None:
    for x, out in zip(call.arguments[0], call.results, strict=True):
        program.line("{")
        _norm(program, Call(call.operator, (x, call.arguments[1]), (out,)))
        program.line("}")


def _stack(program: Program, call: Call) -> None:
    parts, out = call.arguments[0], call.results[0]
    axis = call.arguments[1] % len(out.sizes)
    for place, part in enumerate(parts):
        sizes = tuple(size for at, size in enumerate(out.sizes) if at != axis)
        strides = tuple(stride for at, stride in enumerate(out.strides) if at != axis)
        into = View(out.memory, out.offset + place * out.strides[axis], sizes, strides, out.dtype)
        program.line("{")
        program.pointwise(into, [part], lambda x: x)
        program.line("}")


# --- matrices and rows ---------------------------------------------------------------------------------------


def _mm(program: Program, call: Call) -> None:
    _product(program, call.arguments[0], call.arguments[1], call.results[0], None)


def _addmm(program: Program, call: Call) -> None:
    bias, a, b, beta, alpha = call.arguments
    if (beta, alpha) != (1, 1) or prod(bias.sizes[:-1]) != 1:
        raise Unsupported("it adds a matrix product to something other than a bias")
    _product(program, a, b, call.results[0], broadcast(bias, call.results[0].sizes))


def _product(program: Program, a: View, b: View, out: View, bias: View | None) -> None:
    if any(view.dtype is not out.dtype or TYPES[view.dtype] != "float" for view in (a, b, out)):
        raise Unsupported("its matrix product is not of float32 matrices")
    (rows, deep), wide = a.sizes, b.sizes[1]
    first = (program.pointer(a), *a.strides)
    second = (program.pointer(b), *b.strides)
    result = out.strides
    if bias is None and rows > wide and (a.strides[0] == 1 or wide < 8):  # the transposed product is wider
        rows, wide = wide, rows
        first, second = (
            (program.pointer(b), b.strides[1], b.strides[0]),
            (program.pointer(a), a.strides[1], a.strides[0]),
        )
        result = (out.strides[1], out.strides[0])
    padded = -(-wide // 8) * 8
    pack = program.scratch((deep + 1) * padded)
    add, step = (program.pointer(bias), bias.strides[1]) if bias is not None else ("(const float *)0", 0)
    program.line(
        f"product({rows}, {wide}, {deep}, {first[0]}, {first[1]}, {first[2]}, {second[0]}, {second[1]}, {second[2]}, "
        f"{add}, {step}, {program.pointer(out)}, {result[0]}, {result[1]}, {pack});"
    )


def _index_select(program: Program, call: Call) -> None:
    x, axis, rows = call.arguments
    out = call.results[0]
    if axis != 0:
        raise Unsupported("it selects along another axis than the first")
    names = [program.name() for _ in out.sizes]
    loops = " ".join(f"for (long {n} = 0; {n} < {size}; {n}++) {{" for n, size in zip(names, out.sizes, strict=True))
    place = index(x.strides[1:], names[1:])
    chosen = f"{program.pointer(rows)}[{names[0]} * {rows.strides[0] if rows.sizes else 0}] * {x.strides[0]}"
    program.line(
        f"{loops} {program.pointer(out)}[{index(out.strides, names)}] = {program.pointer(x)}[{chosen} + {place}]; "
        f"{'}' * len(names)}"
    )


def _select_backward(program: Program, call: Call) -> None:
    """Zeros, except the gradient at the selected index of an axis."""
    gradient, sizes, axis, place = call.arguments
    out, axis = call.results[0], axis % len(sizes)
    others = [at for at in range(len(sizes)) if at != axis]
    first = out.offset + (place % sizes[axis]) * out.strides[axis]
    into = View(
        out.memory, first, tuple(sizes[at] for at in others), tuple(out.strides[at] for at in others), out.dtype
    )
    _copy_into_zeros(program, gradient, into, out)


def _slice_backward(program: Program, call: Call) -> None:
    """Zeros, except the gradient at the sliced indices of an axis."""
    gradient, sizes, axis, start, end, step = call.arguments
    out, axis = call.results[0], axis % len(sizes)
    first = out.offset + slice(start, end, step).indices(sizes[axis])[0] * out.strides[axis]
    strides = (*out.strides[:axis], out.strides[axis] * step, *out.strides[axis + 1 :])
    _copy_into_zeros(program, gradient, View(out.memory, first, gradient.sizes, strides, out.dtype), out)


def _copy_into_zeros(program: Program, values: View, into: View, out: View) -> None:
    """Fill `out` with zeros, then `into`, a part of it, with values."""
    program.line("{")
    program.pointwise(out, [], lambda: "0")
    program.line("} {")
    program.pointwise(into, [values], lambda x: x)
    program.line("}")


def _gather(program: Program, call: Call) -> None:
    x, axis, places = call.arguments[:3]
    out = call.results[0]
    names = [program.name() for _ in out.sizes]
    loops = " ".join(f"for (long {n} = 0; {n} < {size}; {n}++) {{" for n, size in zip(names, out.sizes, strict=True))
    chosen = f"{program.pointer(places)}[{index(places.strides, names)}]"
    at = index(x.strides, [f"({chosen})" if number == axis % len(names) else n for number, n in enumerate(names)])
    program.line(
        f"{loops} {program.pointer(out)}[{index(out.strides, names)}] = {program.pointer(x)}[{at}]; {'}' * len(names)}"
    )


OPERATORS = (
    POINTWISE
    | LOSSES
    | {
        "sum.default": _total,
        "sum.dim_IntList": _sum_axes,
        "mean.default": _mean,
        "mean.dim": _mean,
        "linalg_vector_norm.default": _norm,
        "_foreach_norm.Scalar": _each_norm,
        "stack.default": _stack,
        "mm.default": _mm,
        "addmm.default": _addmm,
        "index_select.default": _index_select,
        "gather.default": _gather,
        "select_backward.default": _select_backward,
        "slice_backward.default": _slice_backward,
    }
)
"""The code of every supported operator."""
