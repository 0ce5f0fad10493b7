"""The settings of a run: the defaults are the Iris job, and a value that is shown can be typed again."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochtop.engine.protocol.events import encode
from epochtop.engine.protocol.fields import field, fields, parse, show, spec_from
from epochtop.engine.protocol.requests import Begin, decode_request
from epochtop.engine.protocol.rules import check
from epochtop.engine.protocol.spec import Invalid, RunSpec


def fractions(lowest: float = 0.0, highest: float = 1e6, **bounds: bool) -> st.SearchStrategy[float]:
    """Finite numbers, whole ones among them."""
    return st.floats(lowest, highest, allow_nan=False, **bounds)


VALUES: dict[str, st.SearchStrategy[object]] = {
    "dataset": st.sampled_from(
        ["iris", "digits", "sums", "moons", "cifar10", "csv:/data/a b.csv", "openml:554", "text:~/x;y"]
    ),
    "samples": st.integers(10, 10**8),
    "noise": fractions(highest=100),
    "validation_fraction": fractions(highest=1, exclude_max=True),
    "class_weights": st.booleans(),
    "placement": st.sampled_from(["auto", "device", "stream"]),
    "workers": st.integers(0, 256),
    "image_size": st.integers(0, 4096),
    "skip_broken": st.booleans(),
    "model": st.sampled_from(["mlp", "cnn", "resnet", "lstm", "transformer"]),
    "task": st.sampled_from(["", "mine.py:make", "/a b/c.py:make_task", "~/x.py:_f1"]),
    "dropout": fractions(highest=1, exclude_max=True),
    "width": st.integers(1, 65536),
    "layers": st.integers(1, 1000),
    "heads": st.integers(1, 1024),
    "context": st.integers(2, 65536),
    "max_steps": st.integers(0, 10**12),
    "max_seconds": fractions(highest=1e9),
    "accumulate": st.integers(1, 10**6),
    "last_batch": st.sampled_from(["auto", "keep", "drop"]),
    "nesterov": st.booleans(),
    "schedule": st.sampled_from(["constant", "cosine", "one_cycle", "step", "linear", "plateau", "range_test"]),
    "warmup": st.integers(0, 10**12),
    "clip_norm": fractions(highest=1e9),
    "label_smoothing": fractions(highest=1, exclude_max=True),
    "patience": st.integers(0, 10**9),
    "ema": fractions(highest=1, exclude_max=True),
    "precision": st.sampled_from(["fp32", "tf32", "bf16", "fp16"]),
    "channels_last": st.booleans(),
    "checkpoint_activations": st.booleans(),
    "deterministic": st.booleans(),
    "oom_retry": st.booleans(),
    "executor": st.sampled_from(["auto", "eager", "graph", "compile"]),
    "processes": st.integers(1, 1024),
    "shard": st.booleans(),
    "eval_epochs": st.integers(0, 10**12),
    "keep_epochs": st.integers(0, 10**12),
    "target": st.sampled_from(["", "label", "price in €", "#-1", "a, b"]),
    "problem": st.sampled_from(["auto", "classification", "regression", "multi-label"]),
    "columns": st.sampled_from(["", "age,c*", "!Name, !Ticket"]),
    "kinds": st.sampled_from(["", "age=number", "zip=category, when of day=time,x=skip"]),
    "missing": st.sampled_from(["fill", "drop", "refuse"]),
    "header": st.sampled_from(["auto", "yes", "no"]),
    "encoding": st.sampled_from(["auto", "utf-8", "latin-1", "utf-16-le", "cp1251"]),
    "hidden": st.lists(st.integers(1, 10**12), max_size=6).map(tuple),
    "activation": st.sampled_from(["relu", "tanh", "sigmoid", "gelu", "silu", "none"]),
    "epochs": st.integers(1, 10**12),
    "batch_size": st.integers(0, 2**63 - 1),
    "optimizer": st.sampled_from(["sgd", "adam", "adamw", "rmsprop", "adagrad", "muon"]),
    "learning_rate": fractions(exclude_min=True),
    "momentum": fractions(highest=1, exclude_max=True),
    "weight_decay": fractions(),
    "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:0", "cuda:17", "mps"]),
    "threads": st.integers(0, 4096),
    "test_fraction": fractions(highest=1, exclude_max=True),
    "scaling": st.sampled_from(["minmax", "standard", "none"]),
    "eval_every": fractions(highest=1e9),
    "refresh_ms": st.integers(10, 60_000),
    "save_every": fractions(highest=1e9),
    "seed": st.integers(0, 2**63 - 1),
    "signals": st.sampled_from(["", "SIGUSR1", "QUIT", "SIGUSR2, XCPU,SIGALRM"]),
    "name": st.from_regex(r"[a-zA-Zäöü0-9._+@:=-]([a-zA-Zß0-9 ._+@:=-]{0,58}[a-z])?", fullmatch=True),
}


def test_every_field_is_there_and_described() -> None:
    assert {about.name for about in fields()} == set(VALUES)
    for about in fields():
        assert about.description, about.name
        assert about.expects, about.name
        assert about.group in {"data", "model", "training", "machine", "recording"}


def test_the_defaults_are_the_iris_job() -> None:
    """As published: 4-10-3, ReLU, SGD 0.01 without momentum, full batch, 20,000 epochs, 20 % held out, min-max scaling."""
    spec = RunSpec()
    assert (spec.dataset, spec.test_fraction, spec.scaling) == ("iris", 0.2, "minmax")
    assert (spec.hidden, spec.activation) == ((10,), "relu")
    assert (spec.optimizer, spec.learning_rate, spec.momentum, spec.weight_decay) == ("sgd", 0.01, 0.0, 0.0)
    assert (spec.epochs, spec.batch_size) == (20_000, 0)
    assert (spec.device, spec.threads, spec.refresh_ms) == ("auto", 0, 100)
    assert [about.default for about in fields()] == [getattr(spec, about.name) for about in fields()]
    check(spec)


@pytest.mark.parametrize("name", sorted(VALUES))
@given(data=st.data())
def test_what_is_shown_can_be_typed_again(name: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[name])
    assert parse(name, show(value)) == value  # type: ignore[arg-type]
    assert parse(name, f"  {show(value)} ") == value  # type: ignore[arg-type]


@given(st.fixed_dictionaries(VALUES))
def test_a_spec_survives_encoding_and_decoding(values: dict[str, object]) -> None:
    spec = RunSpec(**values)  # type: ignore[arg-type]
    request = Begin(spec=spec, home="/tmp/runs")
    assert decode_request(encode(request)) == request


TYPED = {
    ("epochs", "20_000"): 20_000,
    ("epochs", "20,000"): 20_000,
    ("epochs", "1e4"): 10_000,
    ("epochs", "+5"): 5,
    ("learning_rate", "1e-3"): 0.001,
    ("learning_rate", "1"): 1.0,
    ("hidden", ""): (),
    ("hidden", "64"): (64,),
    ("hidden", "64,32"): (64, 32),
    ("hidden", "64 32 16"): (64, 32, 16),
    ("seed", str(2**63 - 1)): 2**63 - 1,
}


@pytest.mark.parametrize(("name", "text"), TYPED)
def test_numbers_may_be_typed_as_people_type_them(name: str, text: str) -> None:
    value = parse(name, text)
    assert value == TYPED[name, text]
    assert type(value) is type(TYPED[name, text])


VALUE_TEXTS = [
    ((10, 5), "10, 5"),
    ((), ""),
    (0.01, "0.01"),
    (10.0, "10"),
    (1e-5, "1e-05"),
    (20_000, "20000"),
    ("iris", "iris"),
]


@pytest.mark.parametrize(("value", "text"), VALUE_TEXTS)
def test_a_value_is_shown_as_it_is_typed(value: str | float | tuple[int, ...], text: str) -> None:
    assert show(value) == text


@given(fractions(highest=1e6, exclude_min=True))
def test_no_digit_of_a_rate_is_lost(rate: float) -> None:
    assert float(show(rate)) == rate


EXPECTED = {
    "learning_rate": "a number above 0 and up to 1,000,000",
    "momentum": "a number from 0 and below 1",
    "epochs": "a whole number from 1 to 1,000,000,000,000",
    "batch_size": "a whole number from 0",
    "optimizer": "one of sgd, adam, adamw, rmsprop, adagrad, muon",
    "scaling": "one of minmax, standard, none",
    "hidden": "whole numbers from 1, separated by commas",
    "device": "auto, cpu, cuda, cuda:N or mps",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_field_describes_a_valid_value(name: str) -> None:
    assert field(name).expects == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("learning_rate", "-1", "'-1' is not a number above 0 and up to 1,000,000"),
        ("learning_rate", "", "needs a number above 0 and up to 1,000,000"),
        ("refresh_ms", "5", "'5' is not a whole number from 10 to 60,000 (ms)"),
        ("optimizer", "lion", "'lion' is not one of sgd, adam, adamw, rmsprop, adagrad, muon"),
    ],
)
def test_a_message_quotes_the_text_and_describes_a_valid_value(name: str, text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(name, text)
    assert (caught.value.field, caught.value.message) == (name, message)
    assert str(caught.value) == f"{name}: {message}"


@pytest.mark.parametrize("name", [about.name for about in fields() if about.kind in ("integer", "number")])
@given(text=st.text(max_size=8) | st.floats().map(str) | st.integers().map(str) | st.floats(1, 1e40).map(str))
def test_any_text_is_a_value_within_bounds_or_invalid(name: str, text: str) -> None:
    with suppress(Invalid):
        value = parse(name, text)
        assert isinstance(value, int | float)
        assert math.isfinite(value)
        request = Begin(spec=RunSpec(**{name: value}), home="")  # type: ignore[arg-type]
        assert decode_request(encode(request)) == request


def test_an_unknown_field_is_answered_with_the_known_ones() -> None:
    with pytest.raises(Invalid, match=r"no field 'colour'.*learning_rate"):
        parse("colour", "red")


def test_the_first_wrong_field_is_reported() -> None:
    with pytest.raises(Invalid) as caught:
        spec_from({"epochs": "5", "momentum": "2", "seed": "-1"})
    assert caught.value.field == "momentum"
    assert spec_from({"epochs": "5", "hidden": "3, 4"}) == RunSpec(epochs=5, hidden=(3, 4))


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        (RunSpec(problem="regression"), "problem"),
        (RunSpec(target="species"), "target"),
        (RunSpec(optimizer="adam", momentum=0.5), "momentum"),
        (RunSpec(optimizer="adamw", momentum=0.5), "momentum"),
        (RunSpec(dataset="moons", target="y"), "target"),
        (RunSpec(dataset="regression", class_weights=True), "class_weights"),
        (RunSpec(dataset="text:a.txt"), "model"),
        (RunSpec(model="transformer"), "model"),
        (RunSpec(dataset="text:a.txt", model="transformer", width=10, heads=4), "heads"),
        (RunSpec(checkpoint_activations=True), "checkpoint_activations"),
        (RunSpec(nesterov=True), "nesterov"),
        (RunSpec(nesterov=True, momentum=0.9, optimizer="rmsprop"), "nesterov"),
        (RunSpec(precision="fp16", optimizer="rmsprop"), "precision"),
        (RunSpec(precision="tf32", device="cpu"), "precision"),
        (RunSpec(schedule="range_test", warmup=5), "warmup"),
        (RunSpec(schedule="plateau"), "eval_epochs"),
        (RunSpec(patience=3), "eval_epochs"),
        (RunSpec(dataset="regression", label_smoothing=0.1), "label_smoothing"),
        (RunSpec(shard=True), "shard"),
    ],
)
def test_rules_between_fields_are_checked(spec: RunSpec, wrong: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(spec)
    assert caught.value.field == wrong
