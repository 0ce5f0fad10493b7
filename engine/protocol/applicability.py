"""Which fields have an effect in a run, given the other fields. The form hides the rest.

Rules only; imports the spec only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from epochtop.engine.protocol.datasets import (
    GENERATED,
    IMAGES,
    WITH_ENCODING,
    WITH_TARGET,
    is_labeled_text,
    takes_problem,
    takes_target,
)

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


def _is_plain_text(texts: Texts) -> bool:
    return _source(texts) == "text" and not is_labeled_text(texts["dataset"])


RULES: dict[str, Callable[[Texts], bool]] = {
    "dataset": lambda texts: not _custom(texts),
    "model": lambda texts: not _custom(texts),
    "target": lambda texts: not _custom(texts) and takes_target(texts["dataset"]),
    "problem": lambda texts: not _custom(texts) and takes_problem(texts["dataset"]),
    "skip_broken": lambda texts: not _custom(texts) and _source(texts) in ("images", "hf"),
    "image_size": lambda texts: not _custom(texts) and _source(texts) in ("images", "hf"),
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
    "class_weights": lambda texts: not (_custom(texts) or texts["dataset"] == "regression" or _is_plain_text(texts)),
    "workers": lambda texts: _custom(texts) or _source(texts) == "images",
    "hidden": lambda texts: not _custom(texts) and texts["model"] == "mlp",
    "activation": lambda texts: not _custom(texts) and texts["model"] != "lstm",
    "dropout": lambda texts: not _custom(texts),
    "width": lambda texts: not _custom(texts) and (texts["model"] != "mlp" or _source(texts) in ("text", "hf")),
    "layers": lambda texts: not _custom(texts) and texts["model"] in ("resnet", "lstm", "transformer"),
    "heads": lambda texts: not _custom(texts) and texts["model"] == "transformer",
    "context": lambda texts: not _custom(texts) and _source(texts) in ("text", "hf"),
    "accumulate": lambda texts: texts["batch_size"].strip() not in ("", "0"),
    "last_batch": lambda texts: texts["batch_size"].strip() not in ("", "0"),
    "momentum": lambda texts: texts["optimizer"] in ("sgd", "rmsprop"),
    "nesterov": lambda texts: texts["optimizer"] == "sgd",
    "warmup": lambda texts: texts["schedule"] not in ("range_test", "one_cycle"),
    "label_smoothing": lambda texts: not _custom(texts) and texts["dataset"] != "regression",
    "checkpoint_activations": lambda texts: not _custom(texts) and texts["model"] != "lstm",
    "channels_last": lambda texts: _custom(texts) or texts["model"] in ("cnn", "resnet"),
    "shard": lambda texts: texts["processes"].strip() not in ("", "0", "1"),
}
"""Condition under which a field has an effect; a field without a rule always has one."""


def applies(name: str, texts: Texts) -> bool:
    """Whether field `name` has an effect in a run with these values."""
    rule = RULES.get(name)
    return rule is None or rule(texts)
