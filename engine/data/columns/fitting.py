"""Fitting of encodings on the training rows: fill values, indicators, categories, parts of times, sizes of embeddings.

Must never look at rows of the validation or test part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from epochtop.engine.data.columns.encoding import Encoder
from epochtop.engine.data.columns.times import CYCLES, DAY_S, PARTS, part_of
from epochtop.engine.data.dataset import ColumnEncoding, RawDataset
from epochtop.engine.data.scaling import Index, selected
from epochtop.engine.protocol.datasets import ColumnFact
from epochtop.engine.protocol.quantities import plural
from epochtop.engine.protocol.spec import Invalid

INDICATOR_SHARE = 0.01
"""Share of missing training values from which on a column gets an indicator."""
MOST_ONE_HOT = 50
"""A category with more values than this gets an embedding in the mlp."""
MOST_EMBEDDING = 50
"""Largest embedding."""
MOST_ONE_HOT_INPUTS = 4096
"""Largest number of inputs from categories without embeddings."""
SAMPLED_VALUES = 2**20
"""Numbers of which the medians of columns without missing values are taken, for missing values in new rows."""

Floats = npt.NDArray[np.float64]


def embedding_size(categories: int) -> int:
    """Size of the embedding of a column with this many categories: fastai's rule 1.6 · n^0.56, up to MOST_EMBEDDING.

    Source: `emb_sz_rule` in fastai.tabular.model, whose limit is 600.
    """
    return min(MOST_EMBEDDING, round(1.6 * math.pow(categories, 0.56)))


def fit_encoder(raw: RawDataset, index: Index, embeds: bool) -> Encoder:
    """Fit the encodings of a table on the rows of `index`. `embeds` says whether the model has embeddings. Raises Invalid."""
    if not raw.encodings:
        return Encoder(tuple(ColumnEncoding(fill=fill) for fill in _typical_values(raw.x, index)))
    fitted, lookups = [], {}
    for column, draft in enumerate(raw.encodings):
        values = selected(raw.x[:, column], index).astype(np.float64)
        missing = np.isnan(values)
        present = values[~missing]
        if draft.kind == "category":
            encoding, lookups[column] = _category(draft, present, embeds)
        else:
            encoding = _number(draft, present) if draft.kind == "number" else _time(draft, present)
        has_indicator = bool(missing.mean() > INDICATOR_SHARE) if len(missing) else False
        fitted.append(msgspec.structs.replace(encoding, indicator=has_indicator))
    _check_width(raw.columns, fitted)
    return Encoder(tuple(fitted), lookups)


def _typical_values(x: npt.NDArray[Any], index: Index) -> list[float]:
    """Medians of columns without missing values, over evenly spaced rows of large tables."""
    rows = len(x[index]) if isinstance(index, slice) else len(index)
    step = max(1, rows // max(1000, SAMPLED_VALUES // max(1, x.shape[1])))
    sample = x[index][::step] if isinstance(index, slice) else x[np.asarray(index[0:rows:step])]
    with np.errstate(all="ignore"):
        medians = np.median(sample.astype(np.float64), axis=0) if len(sample) else np.zeros(x.shape[1])
    return [float(value) for value in np.nan_to_num(medians)]


def _number(draft: ColumnEncoding, present: Floats) -> ColumnEncoding:
    """The encoding with the median, as scikit-learn's SimpleImputer computes it in six times the time."""
    return msgspec.structs.replace(draft, fill=float(np.median(present))) if len(present) else draft


def _category(draft: ColumnEncoding, present: Floats, embeds: bool) -> tuple[ColumnEncoding, npt.NDArray[np.int64]]:
    """The encoding with the categories of the training rows, and their indices by index in the raw rows."""
    counts = np.bincount(present.astype(np.int64), minlength=len(draft.categories))
    seen = np.flatnonzero(counts)
    lookup = np.full(len(draft.categories), -1, dtype=np.int64)
    lookup[seen] = np.arange(len(seen))
    size = embedding_size(len(seen)) if embeds and len(seen) > MOST_ONE_HOT else 0
    encoding = msgspec.structs.replace(
        draft,
        categories=tuple(draft.categories[code] for code in seen),
        fill=float(lookup[counts.argmax()]) if len(seen) else -1.0,
        embedding=size,
    )
    return encoding, lookup


def _time(draft: ColumnEncoding, present: Floats) -> ColumnEncoding:
    """The parts of a time that differ between training rows; days always."""
    if not len(present):
        return msgspec.structs.replace(draft, parts=("days",))
    varied = [part for part in PARTS if part == "days" or len(np.unique(part_of(present, part))) > 1]
    origin = float(np.floor(present.min() / DAY_S) * DAY_S)
    return msgspec.structs.replace(draft, parts=tuple(varied), origin=origin, fill=float(np.median(present)))


def _check_width(columns: Sequence[str], fitted: Sequence[ColumnEncoding]) -> None:
    """Raise Invalid if the categories make too many inputs."""
    widths = [0 if encoding.embedding else len(encoding.categories) for encoding in fitted]
    if sum(widths) <= MOST_ONE_HOT_INPUTS:
        return
    widest = int(np.argmax(widths))
    raise Invalid(
        "columns",
        f"categories make {sum(widths):,} inputs, {widths[widest]:,} of them from {columns[widest]!r}; leave it out with "
        f"!{columns[widest]}, or set its kind",
    )


# --- what is said about them ---------------------------------------------------------------------------------


def described(
    facts: Sequence[ColumnFact], columns: Sequence[str], encodings: Sequence[ColumnEncoding], scaling: str
) -> tuple[ColumnFact, ...]:
    """The facts with what the model gets of each feature column."""
    encoding_of = dict(zip(columns, encodings, strict=True))
    return tuple(
        msgspec.structs.replace(fact, treatment=_treatment(fact, encoding_of[fact.name], scaling))
        if fact.name in encoding_of
        else fact
        for fact in facts
    )


def _treatment(fact: ColumnFact, encoding: ColumnEncoding, scaling: str) -> str:
    parts = [_inputs(fact, encoding, scaling)]
    if fact.missing:
        marked = ", marked by an input" if encoding.indicator else ""
        parts.append(f"missing: {_fill(encoding)}{marked}")
    return "; ".join([*parts, *([fact.treatment] if fact.treatment else [])])


def _inputs(fact: ColumnFact, encoding: ColumnEncoding, scaling: str) -> str:
    if encoding.kind == "time":
        return ", ".join(f"{part} (cycle)" if part in CYCLES else part for part in encoding.parts)
    if encoding.kind == "number":
        if fact.kind == "category":
            return "0 for false, 1 for true"
        return "as it is" if scaling == "none" else f"scaled ({scaling})"
    if encoding.embedding:
        return f"embedding of size {encoding.embedding}"
    return f"{plural(len(encoding.categories), 'input')}, one per value"


def _fill(encoding: ColumnEncoding) -> str:
    if encoding.kind == "category":
        return f"{encoding.categories[int(encoding.fill)]!r} (most frequent)" if encoding.fill >= 0 else "no category"
    if encoding.kind == "time":
        return f"{np.datetime64(int(encoding.fill), 's')} (median)"
    return f"{encoding.fill:g} (median)"
