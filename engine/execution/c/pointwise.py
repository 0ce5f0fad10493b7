"""Elementwise operators in C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from epochtop.engine.execution.c.program import TYPES, Program
from epochtop.engine.execution.c.tape import Call, View
from epochtop.engine.execution.executor import Unsupported

Emit = Callable[[Program, Call], None]
"""Adds the code of a call to a program."""


def number(value: Any) -> str:
    """A constant in C: an integer, or a float with suffix."""
    if isinstance(value, View):
        raise Unsupported("one of its bounds or factors is a tensor")
    if isinstance(value, bool | int):
        return str(int(value))
    text = repr(float(value))
    if text in ("inf", "-inf"):
        return text.replace("inf", "INFINITY")
    return "NAN" if text == "nan" else f"{text}f"


def combine(program: Program, out: View, values: Sequence[Any], expression: Callable[..., str]) -> None:
    """`out = expression(values …)`; values are tensors or numbers."""
    inputs: list[View] = []
    picks: list[tuple[int | None, str]] = []
    for value in values:
        if isinstance(value, View):
            picks.append((len(inputs), ""))
            inputs.append(value)
        else:
            picks.append((None, number(value)))

    def code(*names: str) -> str:
        return expression(*(text if place is None else names[place] for place, text in picks))

    program.pointwise(out, inputs, code)


# --- one tensor in, one tensor out ---------------------------------------------------------------------------

ROOT_HALF = "0.70710678118654752f"

FORMULAS: dict[str, Callable[..., str]] = {
    "relu": lambda x: f"({x} < 0 ? 0 : {x})",
    "tanh": lambda x: f"tanhf({x})",
    "sigmoid": lambda x: f"(1 / (1 + expf(-{x})))",
    "silu": lambda x: f"({x} / (1 + expf(-{x})))",
    "exp": lambda x: f"expf({x})",
    "log": lambda x: f"logf({x})",
    "sqrt": lambda x: f"sqrtf({x})",
    "neg": lambda x: f"(-{x})",
    "abs": lambda x: f"fabsf({x})",
    "reciprocal": lambda x: f"(1 / {x})",
    "square": lambda x: f"({x} * {x})",
    "mul": lambda x, y: f"({x} * {y})",
    "div": lambda x, y: f"({x} / {y})",
    "maximum": lambda x, y: f"({x} > {y} || {x} != {x} ? {x} : {y})",
    "minimum": lambda x, y: f"({x} < {y} || {x} != {x} ? {x} : {y})",
    "eq": lambda x, y: f"({x} == {y})",
    "ne": lambda x, y: f"({x} != {y})",
    "lt": lambda x, y: f"({x} < {y})",
    "le": lambda x, y: f"({x} <= {y})",
    "gt": lambda x, y: f"({x} > {y})",
    "ge": lambda x, y: f"({x} >= {y})",
    "where": lambda chosen, x, y: f"({chosen} ? {x} : {y})",
    "masked_fill": lambda x, mask, y: f"({mask} ? {y} : {x})",
    "lerp": lambda x, y, share: f"({x} + {share} * ({y} - {x}))",
    "threshold_backward": lambda gradient, x, threshold: f"({x} <= {threshold} ? 0 : {gradient})",
    "tanh_backward": lambda gradient, y: f"({gradient} * (1 - {y} * {y}))",
    "sigmoid_backward": lambda gradient, y: f"({gradient} * (1 - {y}) * {y})",
    "silu_backward": lambda gradient, x: f"({gradient} / (1 + expf(-{x})) * (1 + {x} * (1 - 1 / (1 + expf(-{x})))))",
}
"""Expressions by operator. Arguments are tensors or numbers, in the order of the operator's arguments."""


def _formula(name: str, arguments: int) -> Emit:
    formula = FORMULAS[name]

    def emit(program: Program, call: Call) -> None:
        combine(program, call.results[0], call.arguments[:arguments], formula)

    return emit


def _scaled(sign: str) -> Emit:
    """add and sub, with a factor for the second argument."""

    def emit(program: Program, call: Call) -> None:
        first, second, alpha = call.arguments
        factor = "" if alpha == 1 else f"{number(alpha)} * "
        combine(program, call.results[0], (first, second), lambda x, y: f"({x} {sign} {factor}{y})")

    return emit


def _reverse_sub(program: Program, call: Call) -> None:
    first, second, alpha = call.arguments
    combine(program, call.results[0], (first, second), lambda x, y: f"({y} - {number(alpha)} * {x})")


def _both(sign: str) -> Emit:
    """addcmul and addcdiv: a tensor plus a scaled product or ratio of two others."""

    def emit(program: Program, call: Call) -> None:
        value = number(call.arguments[3])
        combine(program, call.results[0], call.arguments[:3], lambda x, y, z: f"({x} + {value} * {y} {sign} {z})")

    return emit


def _gelu(program: Program, call: Call) -> None:
    (x, approximate) = call.arguments
    if approximate != "none":
        raise Unsupported("its gelu is the tanh approximation")
    combine(program, call.results[0], (x,), lambda x: f"(0.5f * {x} * (1 + erff({x} * {ROOT_HALF})))")


def _gelu_backward(program: Program, call: Call) -> None:
    gradient, x, approximate = call.arguments
    if approximate != "none":
        raise Unsupported("its gelu is the tanh approximation")
    combine(
        program,
        call.results[0],
        (gradient, x),
        lambda g, x: (
            f"({g} * (0.5f * (1 + erff({x} * {ROOT_HALF})) + {x} * 0.39894228040143268f * expf(-0.5f * {x} * {x})))"
        ),
    )


def _clamp(program: Program, call: Call) -> None:
    x, low, high = call.arguments

    def code(x: str) -> str:
        text = x
        if low is not None:
            text = f"({text} < {number(low)} ? {number(low)} : {text})"
        return text if high is None else f"({text} > {number(high)} ? {number(high)} : {text})"

    combine(program, call.results[0], (x,), code)


def _not(program: Program, call: Call) -> None:
    if call.results[0].dtype is not torch.bool:
        raise Unsupported("it inverts bits of integers")
    combine(program, call.results[0], (call.arguments[0],), lambda x: f"(!{x})")


def _power(program: Program, call: Call) -> None:
    x, exponent = call.arguments
    special = {2: lambda x: f"({x} * {x})", 1: lambda x: x, 0.5: lambda x: f"sqrtf({x})", -1: lambda x: f"(1 / {x})"}
    formula = special.get(exponent, lambda x: f"powf({x}, {number(float(exponent))})")
    combine(program, call.results[0], (x,), formula)


def _copy(program: Program, call: Call) -> None:
    combine(program, call.results[0], (call.arguments[1],), _cast(call.results[0]))


def _converted(program: Program, call: Call) -> None:
    combine(program, call.results[0], (call.arguments[0],), _cast(call.results[0]))


def _cast(out: View) -> Callable[[str], str]:
    if out.dtype not in TYPES:
        raise Unsupported(f"its values are {str(out.dtype).removeprefix('torch.')}")
    # pointwise converts to bool: only whether the value is 0 matters
    return lambda x: x if out.dtype is torch.bool else f"({TYPES[out.dtype]})({x})"


def _filled(value: Any) -> Emit:
    return lambda program, call: combine(program, call.results[0], (), lambda: number(value))


def _full(program: Program, call: Call) -> None:
    combine(program, call.results[0], (), lambda: number(call.arguments[1]))


def _scalar(program: Program, call: Call) -> None:
    combine(program, call.results[0], (), lambda: number(call.arguments[0]))


def _nothing(program: Program, call: Call) -> None:
    """Memory without values needs no code."""


def _bernoulli(program: Program, call: Call) -> None:
    """1 with the given probability, else 0; drawn from the step's seed and the value's index."""
    out, probability = call.results[0], call.arguments[1]
    if not out.dense:
        raise Unsupported("its dropout is on values that are not contiguous")
    first, program.draws = program.draws, program.draws + out.count
    loops = program.loops(out.sizes, [out])
    place = loops.indices[0]
    is_one = f"draw(seeds[step], {first} + {place}) < {float(probability)!r}"
    program.line(f"{loops.head} {program.pointer(out)}[{place}] = {is_one}; {loops.tail}")


def _each(emit: Emit, in_place: bool) -> Emit:
    """An operator on lists of tensors: the operator on tensors, repeated."""

    def repeated(program: Program, call: Call) -> None:
        lists = [argument for argument in call.arguments if _is_list(argument)]
        for place in range(len(lists[0])):
            arguments = tuple(value[place] if _is_list(value) else value for value in call.arguments)
            out = lists[0][place] if in_place else call.results[place]
            program.line("{")
            emit(program, Call(call.operator, arguments, (out,)))
            program.line("}")

    return repeated


def _is_list(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(part, View) for part in value)


def _table() -> dict[str, Emit]:
    table: dict[str, Emit] = {}
    counts = {name: formula.__code__.co_argcount for name, formula in FORMULAS.items()}
    emits = {name: _formula(name, counts[name]) for name in FORMULAS}
    emits |= {"add": _scaled("+"), "sub": _scaled("-"), "rsub": _reverse_sub}
    emits |= {"addcmul": _both("*"), "addcdiv": _both("/"), "clamp": _clamp}
    for name, emit in emits.items():
        for overload in ("default", "Tensor", "Scalar", "self"):
            table[f"{name}.{overload}"] = table[f"{name}_.{overload}"] = emit
    for name in ("add", "mul", "div", "sqrt", "addcmul", "addcdiv", "lerp", "neg", "reciprocal"):
        for overload in ("List", "Scalar", "Tensor", "default"):
            emit = emits[name]
            if name == "add" and overload != "List":
                emit = _each_add
            table[f"_foreach_{name}.{overload}"] = _each(emit, in_place=False)
            table[f"_foreach_{name}_.{overload}"] = _each(emit, in_place=True)
    table |= {
        "bitwise_not.default": _not,
        "pow.Tensor_Scalar": _power,
        "gelu.default": _gelu,
        "gelu_backward.default": _gelu_backward,
    }
    table |= {"copy_.default": _copy, "clone.default": _converted, "_to_copy.default": _converted}
    table |= {"ones_like.default": _filled(1.0), "zeros_like.default": _filled(0.0), "zero_.default": _filled(0.0)}
    table |= {"zeros.default": _filled(0.0), "ones.default": _filled(1.0), "fill_.Scalar": _full}
    table |= {"full.default": _full, "full_like.default": _full, "scalar_tensor.default": _scalar}
    table |= {"empty_like.default": _nothing, "empty.memory_format": _nothing, "bernoulli_.float": _bernoulli}
    return table


def _each_add(program: Program, call: Call) -> None:
    """`_foreach_add` with one number or one tensor for the whole list."""
    first, second, *alpha = call.arguments
    if alpha and alpha[0] != 1:
        raise Unsupported("its sum of tensor lists is scaled")
    combine(program, call.results[0], (first, second), lambda x, y: f"({x} + {y})")


POINTWISE = _table()
