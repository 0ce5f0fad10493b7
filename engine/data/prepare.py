"""From a raw dataset to rows that a model trains on: split, scaled, checked.

Scaling, pixel statistics, target statistics and class weights come from the training rows only. Never imports torch.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from epochtop.engine.data.columns.encoding import Encoder, input_names
from epochtop.engine.data.columns.fitting import described, fit_encoder
from epochtop.engine.data.dataset import Preparation, PreparedDataset, RawDataset, Rows
from epochtop.engine.data.number_text import as_numbers
from epochtop.engine.data.scaling import Index, Scaling, blocks, fit_scaling, scale_rows, selected
from epochtop.engine.data.splitting import SplitIndices, split_indices
from epochtop.engine.protocol.datasets import ColumnFact
from epochtop.engine.protocol.spec import Invalid, RunSpec


def prepare_dataset(raw: RawDataset, spec: RunSpec) -> PreparedDataset:
    """Split and scale a raw dataset. Raises Invalid."""
    parts = split_indices(raw, spec)
    labels = selected(raw.y, parts.train)
    if len(raw.classes) > len(labels):
        raise Invalid(
            "dataset",
            f"the label column has {len(raw.classes)} classes, more than the {len(labels)} training rows; add rows"
            + ("" if as_numbers(raw.classes) is None else ", or set problem to regression"),
        )
    weights, weight_notes = _class_weights(raw, labels, spec)
    train, validation, test, fitted = _inputs(raw, parts, spec)
    preparation = Preparation(
        kind=raw.kind,
        loss=raw.loss,
        classes=raw.classes,
        columns=raw.columns,
        target=raw.target,
        targets=raw.targets,
        image=raw.x.shape[1:] if raw.kind == "image" else raw.image,
        vocabulary=raw.vocabulary,
        series=raw.x.shape[1:] if raw.kind == "series" else None,
        ngrams=raw.ngrams,
        length=raw.x.shape[1] if raw.kind == "document" else 0,
        **_standardization(raw, labels),
        **fitted,
    )
    test_y = raw.y if raw.test is None else raw.test[1]
    validation_y = raw.y if raw.validation is None else raw.validation[1]
    return PreparedDataset(
        train=Rows(train, _targets(labels, preparation)),
        validation=Rows(validation, _targets(selected(validation_y, parts.validation), preparation)),
        test=Rows(test, _targets(selected(test_y, parts.test), preparation)),
        outputs=preparation.outputs,
        preparation=preparation,
        class_weights=weights,
        notes=(*raw.notes, *parts.notes, *weight_notes),
        columns=_described(raw, preparation) if raw.column_facts else (),
    )


def _described(raw: RawDataset, preparation: Preparation) -> tuple[ColumnFact, ...]:
    """The facts with what was fitted."""
    if raw.kind == "table":
        return described(raw.column_facts, raw.columns, preparation.encodings, preparation.scaling)
    scaled = "as they are" if preparation.scaling == "none" else f"each scaled ({preparation.scaling})"
    return tuple(
        msgspec.structs.replace(fact, treatment=f"{fact.treatment}, {scaled}") if fact.kind == "series" else fact
        for fact in raw.column_facts
    )


def _inputs(raw: RawDataset, parts: SplitIndices, spec: RunSpec) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Inputs of the training, validation and test rows, and the fields of Preparation that were fitted for them."""
    test_x = raw.x if raw.test is None else raw.test[0]
    validation_x = raw.x if raw.validation is None else raw.validation[0]
    pieces = ((raw.x, parts.train), (validation_x, parts.validation), (test_x, parts.test))
    if raw.kind not in ("table", "series"):
        fitted = _pixel_statistics(raw.x, parts.train) if raw.kind == "image" else {}
        train, validation, test = (selected(x, index) for x, index in pieces)
        return train, validation, test, fitted
    fitted = {}
    encoder: Encoder | None = None
    columns = raw.columns
    if raw.kind == "table":
        fitted_encoder = fit_encoder(raw, parts.train, spec.model == "mlp")
        fitted = {"encodings": fitted_encoder.encodings, "missing": spec.missing}
        if raw.encodings:
            encoder, columns = fitted_encoder, input_names(raw.columns, fitted_encoder.encodings)
    scaling = fit_scaling(raw.x, parts.train, spec.scaling, encoder, raw.is_rounded)
    train, validation, test = (scale_rows(x, index, scaling, columns, encoder) for x, index in pieces)
    return train, validation, test, fitted | _scaling_fields(scaling)


def _scaling_fields(scaling: Scaling) -> dict[str, Any]:
    offset, factor = (tuple(array.tolist()) for array in (scaling.offset, scaling.factor))
    return {"scaling": scaling.kind, "offset": offset, "factor": factor, "rounded": scaling.rounded}


def _pixel_statistics(x: npt.NDArray[Any], index: Index) -> dict[str, Any]:
    """Mean and standard deviation of each channel. Bytes are summed as integers, so that blocks lose no precision."""
    if x.dtype != np.uint8:
        return _float_statistics(x, index)
    channels = x.shape[1]
    count, total, squares = 0, np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for block in blocks(x, index):
        pixels = block.astype(np.uint32)
        count += pixels.size // channels
        total += pixels.sum(axis=(0, 2, 3), dtype=np.int64)
        squares += (pixels * pixels).sum(axis=(0, 2, 3), dtype=np.int64)
    variance = [int(square) * count - int(sum_) ** 2 for square, sum_ in zip(squares, total, strict=True)]
    std = [(part**0.5 / count / 255) or 1.0 for part in variance]
    return {"pixel_mean": tuple((total / count / 255).tolist()), "pixel_std": tuple(std)}


def _float_statistics(x: npt.NDArray[Any], index: Index) -> dict[str, Any]:
    """The same for floating-point pixels, in two passes, so that a mean far from 0 loses no precision."""
    mean = _mean_pixels(x, index, np.zeros(x.shape[1]), 1)
    std = np.sqrt(_mean_pixels(x, index, mean, 2))
    spreads = [float(spread) or 1.0 for spread in std]
    return {"pixel_mean": tuple(mean.tolist()), "pixel_std": tuple(spreads), "pixel_max": 1.0}


def _mean_pixels(
    x: npt.NDArray[Any], index: Index, center: npt.NDArray[np.float64], power: int
) -> npt.NDArray[np.float64]:
    """Mean of `(pixel - center) ** power` of each channel."""
    total, count = np.zeros(x.shape[1]), 0
    for block in blocks(x, index):
        total += ((block - center[:, None, None]) ** power).sum(axis=(0, 2, 3))
        count += block.size // x.shape[1]
    return total / max(1, count)


def _standardization(raw: RawDataset, labels: npt.NDArray[Any]) -> dict[str, Any]:
    """The fields of Preparation that standardize the training rows' targets, if these are numbers."""
    if raw.loss != "mean_squared_error":
        return {}
    if not raw.targets:
        center, spread = _standard(labels, "")
        return {"target_center": center, "target_spread": spread}
    pairs = [_standard(labels[:, number], name) for number, name in enumerate(raw.targets)]
    centers, spreads = zip(*pairs, strict=True)
    return {"target_centers": centers, "target_spreads": spreads}


def _targets(y: npt.NDArray[Any], preparation: Preparation) -> npt.NDArray[Any]:
    """Labels in the type that the loss takes."""
    if preparation.loss == "next_character":
        return y
    if preparation.loss != "mean_squared_error":
        return np.ascontiguousarray(y, dtype=np.int64 if preparation.loss == "cross_entropy" else np.float32)
    with np.errstate(over="ignore"):
        numbers: npt.NDArray[Any] = ((y - _values(preparation, "center")) / _values(preparation, "spread")).astype(
            np.float32
        )
    if not np.isfinite(numbers).all():
        name = preparation.targets[int(np.argwhere(~np.isfinite(numbers))[0][1])] if y.ndim == 2 else preparation.target
        raise Invalid("target", f"column {name!r} contains an outlier that overflows float32; remove or rescale it")
    return numbers


def _values(preparation: Preparation, name: Literal["center", "spread"]) -> npt.NDArray[np.float64] | float:
    """The number of a single target, (targets,) of several."""
    several = getattr(preparation, f"target_{name}s")
    return np.array(several) if several else float(getattr(preparation, f"target_{name}"))


def _standard(y: npt.NDArray[Any], name: str) -> tuple[float, float]:
    """Mean and standard deviation of a target in the training rows; `name` is that of one of several. Raises Invalid."""
    of_name = f" of {name!r}" if name else ""
    with np.errstate(all="ignore"):
        center, spread = float(y.mean()), float(y.std())
    if not np.isfinite((center, spread)).all():
        raise Invalid("target", f"the values{of_name} are too large to standardize; divide them by a power of ten")
    if spread == 0.0:
        raise Invalid(
            "target", f"every training row has the same value{of_name} ({center:g}); there is nothing to learn"
        )
    return center, spread


def _class_weights(
    raw: RawDataset, labels: npt.NDArray[Any], spec: RunSpec
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Inverse class frequencies with mean 1 over the training rows, and notes; a class without training rows has 1."""
    if not spec.class_weights:
        return (), ()
    if not raw.classes:
        reason = f"the target {raw.target!r} is a number, not a class"
        if raw.kind == "text" or raw.targets:
            reason = "a text has no classes" if raw.kind == "text" else "several targets have no classes"
        raise Invalid("class_weights", f"{reason}; turn class_weights off")
    counts = np.bincount(labels.astype(np.int64), minlength=len(raw.classes))
    present = int((counts > 0).sum())
    weights = tuple(len(labels) / (present * int(count)) if count else 1.0 for count in counts)
    absent = [name for name, count in zip(raw.classes, counts, strict=True) if not count]
    notes = (f"no training row has the class {', '.join(map(repr, absent[:12]))}",) if absent else ()
    return weights, notes
