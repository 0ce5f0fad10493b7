"""Which fields have an effect in a run, given the other fields. The form hides the rest.

Rules only; imports the spec only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from epochtop.engine.protocol.datasets import GENERATED, IMAGES, WITH_ENCODING, WITH_PROBLEM, WITH_TARGET

Texts = Mapping[str, str]
"""Texts by field name, as typed; they may be invalid."""


def _source(texts: Texts) -> str:
    kind, colon, _ = texts["dataset"].partition(":")
    return kind if colon else ""


def _custom(texts: Texts) -> bool:
    return bool(texts["task"].strip())


def _images(texts: Texts) -> bool:
    return texts["dataset"] in IMAGES or _source(texts) == "images"


def _table(texts: Texts) -> bool:
    return not _custom(texts) and _source(texts) in WITH_TARGET


RULES: dict[str, Callable[[Texts], bool]] = {
    "dataset": lambda texts: not _custom(texts),
    "model": lambda texts: not _custom(texts),
    "target": _table,
    "problem": lambda texts: not _custom(texts) and _source(texts) in WITH_PROBLEM,
    "columns": _table,
    "kinds": _table,
    "missing": _table,
    "header": lambda texts: not _custom(texts) and _source(texts) == "csv",
    "encoding": lambda texts: not _custom(texts) and _source(texts) in WITH_ENCODING,
    "samples": lambda texts: not _custom(texts) and texts["dataset"] in GENERATED,
    "noise": lambda texts: not _custom(texts) and texts["dataset"] in GENERATED,
    "test_fraction": lambda texts: not _custom(texts),
    "validation_fraction": lambda texts: not _custom(texts),
    "scaling": lambda texts: not (_custom(texts) or _images(texts) or _source(texts) == "text"),
    "class_weights": lambda texts: not (_custom(texts) or texts["dataset"] == "regression" or _source(texts) == "text"),
    "workers": _custom,
    "hidden": lambda texts: not _custom(texts) and texts["model"] == "mlp",
    "activation": lambda texts: not _custom(texts),
    "dropout": lambda texts: not _custom(texts),
    "width": lambda texts: not _custom(texts) and texts["model"] != "mlp",
    "layers": lambda texts: not _custom(texts) and texts["model"] in ("resnet", "transformer"),
    "heads": lambda texts: not _custom(texts) and texts["model"] == "transformer",
    "context": lambda texts: not _custom(texts) and texts["model"] == "transformer",
    "accumulate": lambda texts: texts["batch_size"].strip() not in ("", "0"),
    "last_batch": lambda texts: texts["batch_size"].strip() not in ("", "0"),
    "momentum": lambda texts: texts["optimizer"] in ("sgd", "rmsprop"),
    "nesterov": lambda texts: texts["optimizer"] == "sgd",
    "warmup": lambda texts: texts["schedule"] not in ("range_test", "one_cycle"),
    "label_smoothing": lambda texts: not _custom(texts) and texts["dataset"] != "regression",
    "checkpoint_activations": lambda texts: not _custom(texts),
    "channels_last": lambda texts: _custom(texts) or texts["model"] in ("cnn", "resnet"),
    "shard": lambda texts: texts["processes"].strip() not in ("", "0", "1"),
}
"""Condition under which a field has an effect; a field without a rule always has one."""


def applies(name: str, texts: Texts) -> bool:
    """Whether field `name` has an effect in a run with these values."""
    rule = RULES.get(name)
    return rule is None or rule(texts)
