"""Which fields of a run say anything about it, given the others: a form hides the rest. Declaration only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from epochtop.engine.protocol.spec import GENERATED, IMAGES, WITH_TARGET

Texts = Mapping[str, str]
"""The fields as they are typed; they may be wrong."""


def _source(texts: Texts) -> str:
    kind, colon, _ = texts["dataset"].partition(":")
    return kind if colon else ""


def _own(texts: Texts) -> bool:
    return bool(texts["task"].strip())


def _images(texts: Texts) -> bool:
    return texts["dataset"] in IMAGES or _source(texts) == "images"


def _several(texts: Texts, name: str) -> bool:
    return texts[name].strip() not in ("", "0", "1")


RULES: dict[str, Callable[[Texts], bool]] = {
    "dataset": lambda texts: not _own(texts),
    "model": lambda texts: not _own(texts),
    "target": lambda texts: not _own(texts) and _source(texts) in WITH_TARGET,
    "samples": lambda texts: not _own(texts) and texts["dataset"] in GENERATED,
    "noise": lambda texts: not _own(texts) and texts["dataset"] in GENERATED,
    "test_fraction": lambda texts: not _own(texts),
    "validation_fraction": lambda texts: not _own(texts),
    "scaling": lambda texts: not (_own(texts) or _images(texts) or _source(texts) == "text"),
    "class_weights": lambda texts: not (_own(texts) or texts["dataset"] == "regression" or _source(texts) == "text"),
    "workers": _own,
    "hidden": lambda texts: not _own(texts) and texts["model"] == "mlp",
    "activation": lambda texts: not _own(texts),
    "dropout": lambda texts: not _own(texts),
    "width": lambda texts: not _own(texts) and texts["model"] != "mlp",
    "layers": lambda texts: not _own(texts) and texts["model"] in ("resnet", "transformer"),
    "heads": lambda texts: not _own(texts) and texts["model"] == "transformer",
    "context": lambda texts: not _own(texts) and texts["model"] == "transformer",
    "accumulate": lambda texts: texts["batch_size"].strip() not in ("", "0"),
    "momentum": lambda texts: texts["optimizer"] in ("sgd", "rmsprop"),
    "nesterov": lambda texts: texts["optimizer"] == "sgd",
    "warmup": lambda texts: texts["schedule"] not in ("range_test", "one_cycle"),
    "label_smoothing": lambda texts: not _own(texts) and texts["dataset"] != "regression",
    "checkpoint_activations": lambda texts: not _own(texts),
    "channels_last": lambda texts: _own(texts) or texts["model"] in ("cnn", "resnet"),
    "shard": lambda texts: _several(texts, "processes"),
}


def applies(name: str, texts: Texts) -> bool:
    """Whether field `name` changes anything in a run with these values."""
    rule = RULES.get(name)
    return rule is None or rule(texts)
