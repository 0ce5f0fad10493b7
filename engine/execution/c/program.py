"""A tape as a C program: one function that takes any number of steps, with all memory allocated beforehand.

    void run(long steps, void **outside, char *room, const float *factors, const int64_t *rows,
             const uint64_t *seeds, float *losses)

`factors` and `rows` advance with every step. Other modules contain the code of operators; this one contains memory, indices
and loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from epochtop.engine.execution.c.tape import Call, Tape, View
from epochtop.engine.execution.executor import Unsupported

TYPES = {torch.float32: "float", torch.int64: "int64_t", torch.bool: "uint8_t"}
ALIGNMENT = 64

PREAMBLE = """\
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float lanes __attribute__((vector_size(32), aligned(4)));

#if defined(VECTOR_MATH)
__attribute__((simd("notinbranch"))) float expf(float);
__attribute__((simd("notinbranch"))) float logf(float);
#endif

static inline double draw(uint64_t seed, uint64_t place) {  /* splitmix64: a number in 0 .. 1 for every place */
    uint64_t z = seed + (place + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}
"""


@dataclass(frozen=True)
class Advancing:
    """An input of which every step takes the next `count` values: `factors` or `rows`."""

    pointer: str
    count: int


@dataclass
class Program:
    """C code under construction. `advancing` are the memories of the tape that advance with every step."""

    tape: Tape
    advancing: dict[int, Advancing]
    body: list[str] = field(default_factory=list)
    draws: int = 0
    """Random numbers that a step draws."""
    _room: int = 0
    _names: int = 0
    _places: dict[int, int] = field(default_factory=dict)
    outside: list[Tensor] = field(default_factory=list)
    """Tensors from outside, in the order of the function's argument."""

    # --- memory ------------------------------------------------------------------------------------------

    def pointer(self, view: View) -> str:
        """C expression for the first value of a view."""
        if view.dtype not in TYPES:
            raise Unsupported(f"its values are {str(view.dtype).removeprefix('torch.')}")
        base = f"m{view.memory}_{TYPES[view.dtype]}"
        return f"({base} + {view.offset})" if view.offset else base

    def scratch(self, count: int) -> str:
        """C expression for a pointer to temporary memory for `count` floats."""
        return f"((float *)(room + {self._allocate(4 * count)}))"

    def name(self) -> str:
        """A new variable name."""
        self._names += 1
        return f"v{self._names}"

    def _allocate(self, size: int) -> int:
        place, self._room = self._room, self._room + -(-size // ALIGNMENT) * ALIGNMENT
        return place

    @property
    def room_bytes(self) -> int:
        """Bytes that the function needs in `room`."""
        return max(self._room, ALIGNMENT)

    def _declarations(self) -> list[str]:
        """Typed pointers to the start of every memory."""
        lines = []
        for memory, dtype in sorted(self._memories(), key=str):
            kind = TYPES.get(dtype)
            if kind is None:
                continue
            if memory in self.advancing:
                part = self.advancing[memory]
                where = f"{part.pointer} + step * {part.count}"
                lines.append(f"const {kind} *const m{memory}_{kind} = {where};")
                continue
            if memory in self.tape.outside:
                where = f"outside[{self._outside(memory)}]"
            else:
                if memory not in self._places:
                    self._places[memory] = self._allocate(self.tape.bytes[memory])
                where = f"(room + {self._places[memory]})"
            lines.append(f"{kind} *const m{memory}_{kind} = ({kind} *){where};")
        return lines

    def _outside(self, memory: int) -> int:
        tensor = self.tape.outside[memory]
        for number, outside in enumerate(self.outside):
            if outside is tensor:
                return number
        self.outside.append(tensor)
        return len(self.outside) - 1

    def _memories(self) -> set[tuple[int, torch.dtype]]:
        return {(view.memory, view.dtype) for call in self.tape.calls for view in views((call.arguments, call.results))}

    @property
    def calls(self) -> int:
        """Number of operators."""
        return len(self.tape.calls)

    # --- code --------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """Add a line to the code of a step."""
        self.body.append(text)

    def source(self) -> str:
        """The complete program."""
        loss = self.tape.loss
        assert loss is not None
        lines = [
            *self._declarations(),
            *self.body,
            f"losses[step] = (float)*{self.pointer(loss)};",
        ]
        text = "\n        ".join(lines)
        return (
            f"{PREAMBLE}{MATRICES}\n"
            "void run(long steps, void **outside, char *room, const float *factors, const int64_t *rows,\n"
            "         const uint64_t *seeds, float *losses) {\n"
            "    (void)outside; (void)factors; (void)rows; (void)seeds;\n"
            "    for (long step = 0; step < steps; step++) {\n"
            f"        {text}\n"
            "    }\n"
            "}\n"
        )

    def pointwise(self, out: View, inputs: Sequence[View], value: Callable[..., str]) -> None:
        """`out[i] = value(inputs[i] …)`, inputs broadcast to the shape of `out`."""
        spread = [broadcast(view, out.sizes) for view in inputs]
        names: list[str] = []
        fixed: dict[int, str] = {}
        for place, view in enumerate(spread):
            if all(stride == 0 for stride, size in zip(view.strides, view.sizes, strict=True) if size != 1):
                fixed[place] = self.name()
                pointer = self.pointer(view)
                self.line(f"const {TYPES[view.dtype]} {fixed[place]} = *{pointer};")
        varying = [view for place, view in enumerate(spread) if place not in fixed]
        with_index = self.loops(out.sizes, [out, *varying])
        places = iter(with_index.indices[1:])
        for place, view in enumerate(spread):
            name = fixed[place] if place in fixed else f"{self.pointer(view)}[{next(places)}]"
            # torch converts integers before it computes with them
            names.append(f"(float){name}" if out.dtype is torch.float32 and view.dtype is not torch.float32 else name)
        target, result = f"{self.pointer(out)}[{with_index.indices[0]}]", value(*names)
        result = f"({result}) != 0" if out.dtype is torch.bool else result
        self.line(f"{with_index.head} {target} = {result}; {with_index.tail}")

    def loops(self, sizes: Sequence[int], over: Sequence[View]) -> Loops:
        """Loops over all values of views of one shape; a single loop if all views are dense."""
        count = 1
        for size in sizes:
            count *= size
        if all(view.dense for view in over):
            name = self.name()
            return Loops(_loop(name, count, vector=True), "}", (name,) * len(over))
        names = [self.name() for _ in sizes]
        inner = len(sizes) - 1
        head = " ".join(
            _loop(name, size, axis == inner) for axis, (name, size) in enumerate(zip(names, sizes, strict=True))
        )
        indices = tuple(index(view.strides, names) for view in over)
        return Loops(head, "}" * len(names), indices)


@dataclass(frozen=True)
class Loops:
    """Opening and closing code of loops, and the index expression of every view inside."""

    head: str
    tail: str
    indices: tuple[str, ...]


def _loop(name: str, count: int, vector: bool = False) -> str:
    # iterations never depend on each other
    pragma = '_Pragma("GCC ivdep") ' if vector and count > 1 else ""
    return f"{pragma}for (long {name} = 0; {name} < {count}; {name}++) {{"


def index(strides: Sequence[int], names: Sequence[str]) -> str:
    """C expression for the offset of a value, from its index along every axis."""
    parts = [f"{name} * {stride}" for stride, name in zip(strides, names, strict=True) if stride]
    return " + ".join(parts) or "0"


def broadcast(view: View, sizes: Sequence[int]) -> View:
    """The view broadcast to another shape, by torch's rules."""
    lead = len(sizes) - len(view.sizes)
    if lead < 0:  # the result of an in-place operator may lack leading axes of size 1
        return View(view.memory, view.offset, view.sizes[-len(sizes) :], view.strides[-len(sizes) :], view.dtype)
    strides = [0] * lead + [
        0 if have == 1 and want != 1 else stride
        for have, want, stride in zip(view.sizes, sizes[lead:], view.strides, strict=True)
    ]
    return View(view.memory, view.offset, tuple(sizes), tuple(strides), view.dtype)


def views(value: Any) -> list[View]:
    """All views in nested tuples."""
    if isinstance(value, View):
        return [value]
    return [view for part in value for view in views(part)] if isinstance(value, tuple) else []


MATRICES = """
/* C (rows x wide) = A (rows x deep) B (deep x wide) + bias; any strides of A and C. B is packed, 8 columns wide at
   least, and a tile of C stays in registers while it is added up. */
static inline __attribute__((always_inline)) void tile(
    long deep, const float *a, long a_row, long a_deep, const float *b, long b_deep, const float *bias,
    float *c, long c_row, long c_wide, long wide, const long rows, const long vectors) {
    lanes sum[4][4];
    _Pragma("GCC unroll 4") for (long r = 0; r < rows; r++)
        _Pragma("GCC unroll 4") for (long v = 0; v < vectors; v++) sum[r][v] = bias ? *(const lanes *)(bias + 8 * v) : (lanes){0};
    for (long k = 0; k < deep; k++)
        _Pragma("GCC unroll 4") for (long r = 0; r < rows; r++) {
            const float x = a[r * a_row + k * a_deep];
            _Pragma("GCC unroll 4") for (long v = 0; v < vectors; v++) sum[r][v] += x * *(const lanes *)(b + k * b_deep + 8 * v);
        }
    _Pragma("GCC unroll 4") for (long r = 0; r < rows; r++)
        _Pragma("GCC unroll 4") for (long v = 0; v < vectors; v++) {
            float *to = c + r * c_row + 8 * v * c_wide;
            const long left = wide - 8 * v;
            if (c_wide == 1 && left >= 8) *(lanes *)to = sum[r][v];
            else for (long i = 0; i < (left < 8 ? left : 8); i++) to[i * c_wide] = sum[r][v][i];
        }
}

#define COLUMNS(vectors) \\
static __attribute__((noinline)) void columns_##vectors( \\
    long rows, long deep, const float *a, long a_row, long a_deep, const float *b, long b_deep, const float *bias, \\
    float *c, long c_row, long c_wide, long wide) { \\
    long r = 0; \\
    for (; r + 4 <= rows; r += 4) \\
        tile(deep, a + r * a_row, a_row, a_deep, b, b_deep, bias, c + r * c_row, c_row, c_wide, wide, 4, vectors); \\
    for (; r < rows; r++) \\
        tile(deep, a + r * a_row, a_row, a_deep, b, b_deep, bias, c + r * c_row, c_row, c_wide, wide, 1, vectors); \\
}
COLUMNS(1)
COLUMNS(2)
COLUMNS(4)

static __attribute__((noinline)) void product(
    long rows, long wide, long deep, const float *a, long a_row, long a_deep, const float *b, long b_deep, long b_wide,
    const float *bias, long bias_wide, float *c, long c_row, long c_wide, float *pack) {
    const long padded = (wide + 7) / 8 * 8;
    float *side = pack + deep * padded;
    if (b_wide != 1 || padded != wide) {
        for (long k = 0; k < deep; k++) {
            for (long n = 0; n < wide; n++) pack[k * padded + n] = b[k * b_deep + n * b_wide];
            for (long n = wide; n < padded; n++) pack[k * padded + n] = 0;
        }
        b = pack;
        b_deep = padded;
    }
    if (bias) {
        for (long n = 0; n < wide; n++) side[n] = bias[n * bias_wide];
        for (long n = wide; n < padded; n++) side[n] = 0;
    }
    for (long n = 0; n < padded;) {
        const long vectors = padded - n >= 32 ? 4 : padded - n >= 16 ? 2 : 1;
        (vectors == 4 ? columns_4 : vectors == 2 ? columns_2 : columns_1)(
            rows, deep, a, a_row, a_deep, b + n, b_deep, bias ? side + n : 0, c + n * c_wide, c_row, c_wide, wide - n);
        n += 8 * vectors;
    }
}
"""


def program(
    tape: Tape, advancing: dict[int, Advancing], operators: dict[str, Callable[[Program, Call], None]]
) -> Program:
    """The program of a tape. Raises Unsupported for an operator without code."""
    result = Program(tape, advancing)
    for call in tape.calls:
        emit = operators.get(call.operator)
        if emit is None:
            raise Unsupported(f"the operator {call.operator.split('.')[0].strip('_')} is not available in C")
        result.line(f"/* {call.operator} */")
        result.line("{")
        emit(result, call)
        result.line("}")
    return result
