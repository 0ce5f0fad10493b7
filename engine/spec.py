"""What a run is asked to do: one declaration for the form, the flags, the file format and the errors.

Every field of :class:`RunSpec` carries its bounds, unit and description; everything that shows or reads a
field asks :func:`fields` and :func:`parse`. Imports msgspec and the standard library only.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

Value = str | int | float | tuple[int, ...]
"""What a field of a spec can hold."""


class Invalid(ValueError):  # noqa: N818 - reads as a statement: the field is invalid
    """A value that a spec cannot take. `field` names it, the message says what would be right."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


def _field(description: str, group: str, unit: str = "", **bounds: Any) -> Meta:
    return Meta(description=description, extra={"group": group, "unit": unit}, **bounds)


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of a run. The defaults are the Iris job: 4-10-3 MLP, SGD 0.01, full batch, 20,000 epochs."""

    dataset: Annotated[
        str,
        _field(
            "iris, wine, breast_cancer, digits (scikit-learn), sums (synthetic), or csv:PATH",
            "data",
            pattern=r"^(iris|wine|breast_cancer|digits|sums|csv:.+)$",
        ),
    ] = "iris"
    target: Annotated[str, _field("label column of a CSV file; empty for the built-in datasets", "data")] = ""
    test_fraction: Annotated[
        float,
        _field("share of the rows held out for the test loss; 0 trains on every row", "data", ge=0, lt=1),
    ] = 0.2
    scaling: Annotated[
        Literal["minmax", "standard", "none"],
        _field("feature scaling, fitted on the training rows only", "data"),
    ] = "minmax"
    hidden: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=10**12)], ...],
        _field("units of each hidden layer, separated by commas; empty is a linear model", "model", max_length=64),
    ] = (10,)
    activation: Annotated[Literal["relu", "tanh", "sigmoid", "gelu", "silu"], _field("between the layers", "model")] = (
        "relu"
    )
    epochs: Annotated[int, _field("passes over the training rows", "training", ge=1, le=10**12)] = 20_000
    batch_size: Annotated[
        int,
        _field("rows in a batch, shuffled every epoch; 0 takes all rows at once", "training", "rows", ge=0),
    ] = 0
    optimizer: Annotated[Literal["sgd", "adam", "adamw"], _field("update rule", "training")] = "sgd"
    learning_rate: Annotated[float, _field("step size of the optimizer", "training", gt=0, le=1e6)] = 0.01
    momentum: Annotated[float, _field("momentum of sgd; 0 is plain SGD", "training", ge=0, lt=1)] = 0.0
    weight_decay: Annotated[
        float, _field("L2 penalty (sgd, adam) or decoupled decay (adamw)", "training", ge=0, le=1e6)
    ] = 0.0
    seed: Annotated[
        int,
        _field(
            "of the initial weights and of shuffling; the test split stays the same",
            "training",
            ge=0,
            le=2**63 - 1,
        ),
    ] = 1
    device: Annotated[
        str,
        _field("auto, cpu, cuda, cuda:N or mps", "machine", pattern=r"^(auto|cpu|cuda(:\d{1,3})?|mps)$"),
    ] = "auto"
    threads: Annotated[
        int,
        _field(
            "CPU threads of an operator; 0 takes all only where a few timed steps are clearly faster with them",
            "machine",
            ge=0,
            le=4096,
        ),
    ] = 0
    refresh_ms: Annotated[
        int, _field("how often losses are read from the device", "recording", "ms", ge=10, le=60_000)
    ] = 100
    eval_every: Annotated[
        float,
        _field(
            "between evaluations on the test rows; 0 evaluates only at the end",
            "recording",
            "s",
            ge=0,
            le=1e9,
        ),
    ] = 0.5
    save_every: Annotated[
        float, _field("between checkpoints; 0 saves only at the end", "recording", "s", ge=0, le=10**9)
    ] = 10.0
    name: Annotated[
        str, _field("a name to find the run by; may be empty", "recording", pattern=r"^[\w .+@:=-]{0,60}$")
    ] = ""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of :class:`RunSpec`, as a form or a command line shows it."""

    name: str
    kind: Literal["text", "integer", "number", "integers", "choice"]
    default: Value
    description: str
    group: str
    unit: str
    choices: tuple[str, ...] = ()
    expects: str
    """What a right value is, in words: "a number above 0"."""


def _bounds(kind: Any) -> str:
    low = f"above {_plain(kind.gt)}" if kind.gt is not None else f"from {_plain(kind.ge)}"
    if kind.lt is not None:
        return f"{low} to below {_plain(kind.lt)}"
    return f"{low} to {_plain(kind.le)}" if kind.le is not None else low


def _plain(bound: float) -> str:
    return f"{int(bound):,}" if float(bound).is_integer() else f"{bound:g}"


_TEXT_EXPECTS = {
    "dataset": "iris, wine, breast_cancer, digits, sums or csv:PATH",
    "device": "auto, cpu, cuda, cuda:N or mps",
    "name": "up to 60 letters, digits, spaces and . _ + @ : = -",
}


@cache
def fields() -> tuple[Field, ...]:
    """Every field of :class:`RunSpec`, in order."""
    info = msgspec.inspect.type_info(RunSpec)
    assert isinstance(info, msgspec.inspect.StructType)
    return tuple(_describe(field) for field in info.fields)


def _describe(field: msgspec.inspect.Field) -> Field:
    meta = field.type
    assert isinstance(meta, msgspec.inspect.Metadata)
    extra, kind = meta.extra or {}, meta.type
    description = (meta.extra_json_schema or {}).get("description", "")
    choices: tuple[str, ...] = ()
    match kind:
        case msgspec.inspect.IntType():
            name, expects = "integer", f"a whole number {_bounds(kind)}"
        case msgspec.inspect.FloatType():
            name, expects = "number", f"a number {_bounds(kind)}"
        case msgspec.inspect.LiteralType():
            choices = get_args(get_type_hints(RunSpec)[field.name])  # msgspec sorts them
            name, expects = "choice", "one of " + ", ".join(choices)
        case msgspec.inspect.VarTupleType():
            name, expects = "integers", "whole numbers from 1, separated by commas"
        case _:
            name, expects = "text", _TEXT_EXPECTS.get(field.name, "text")
    return Field(
        name=field.name,
        kind=name,  # type: ignore[arg-type]
        default=field.default,
        description=description,
        group=extra["group"],
        unit=extra["unit"],
        choices=choices,
        expects=expects,
    )


@cache
def field(name: str) -> Field:
    """The field called `name`; Invalid if there is none."""
    for candidate in fields():
        if candidate.name == name:
            return candidate
    raise Invalid("", f"there is no field {name!r}; the fields are {', '.join(f.name for f in fields())}")


def show(value: Value) -> str:
    """A value as one types it: `(10, 5)` is `10, 5`."""
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def parse(name: str, text: str) -> Value:
    """The value of field `name` written as `text`. Raises Invalid with what would be right."""
    about = field(name)
    text = text.strip()
    try:
        value = _convert(about, text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        msgspec.convert({name: value}, RunSpec)
    except (ValueError, msgspec.ValidationError):
        shown = f"{text!r} is not" if text else "needs"
        raise Invalid(name, f"{shown} {about.expects}{f' ({about.unit})' if about.unit else ''}") from None
    return value


def _convert(about: Field, text: str) -> Value:
    match about.kind:
        case "integer":
            return _integer(text)
        case "number":
            return float(text)
        case "integers":
            return tuple(_integer(part) for part in text.replace(",", " ").split())
        case _:
            return text


def _integer(text: str) -> int:
    plain = text.replace("_", "").replace(",", "")
    if plain.lstrip("+-").isdigit() and len(plain) < 40:
        return int(plain)
    number = float(plain)  # 1e4 is a whole number too
    if not number.is_integer():
        raise ValueError(text)
    return int(number)


def spec_from(texts: dict[str, str]) -> RunSpec:
    """A checked spec from what was typed, field by field. Raises Invalid for the first wrong field."""
    spec = RunSpec(**{name: parse(name, text) for name, text in texts.items()})  # type: ignore[arg-type]
    check(spec)
    return spec


def check(spec: RunSpec) -> None:
    """The rules between fields; bounds of single fields are checked where a spec is read. Raises Invalid."""
    from_csv = spec.dataset.startswith("csv:")
    if spec.target and not from_csv:
        raise Invalid("target", f"is for csv:PATH; the dataset {spec.dataset} has its own labels")
    if spec.momentum and spec.optimizer != "sgd":
        raise Invalid("momentum", f"is used by sgd only; leave it at 0 for {spec.optimizer}")
