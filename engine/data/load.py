"""The rows a run trains on: read, split, scaled, checked; still on the host.

Everything that is fitted is fitted on the training rows only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from epochtop.engine.data.dataset import OnProgress, PreparedDataset, RawDataset, no_progress
from epochtop.engine.data.prepare import split
from epochtop.engine.protocol.spec import FILES, GENERATED, IMAGES, Invalid, RunSpec


def load(spec: RunSpec, say: OnProgress = no_progress) -> PreparedDataset:
    """Read, split and scale the dataset of `spec`. Raises Invalid with file, row and field."""
    path = file_of(spec)
    try:
        return split(_read(spec, path, say), spec)
    except MemoryError:
        raise Invalid("dataset", f"{path or spec.dataset} does not fit into the free memory") from None
    except Invalid as error:
        if path is None or str(path) in error.message:
            raise
        raise Invalid(error.field, f"{path}: {error.message}") from None


def file_of(spec: RunSpec) -> Path | None:
    """The user's own file or folder of a dataset, absolute; None for the others."""
    if spec.source not in FILES:
        return None
    return Path(spec.dataset.partition(":")[2]).expanduser().absolute()


def _read(spec: RunSpec, path: Path | None, say: OnProgress) -> RawDataset:
    """Each source is imported where it is asked for: none of them should cost the others' start."""
    if path is not None:
        return _read_file(spec, path, say)
    if spec.dataset == "sums" or spec.dataset in GENERATED:
        from epochtop.engine.data.synthetic import generated

        return generated(spec)
    if spec.dataset in IMAGES or spec.source:
        from epochtop.engine.data.downloads.registry import fetched

        return fetched(spec, say)
    return _built_in(spec.dataset)


def _read_file(spec: RunSpec, path: Path, say: OnProgress) -> RawDataset:
    if spec.source == "csv":
        from epochtop.engine.data.tables.csv import read_csv

        return read_csv(path, spec.target, say)
    if spec.source == "parquet":
        from epochtop.engine.data.tables.parquet import read_parquet

        return read_parquet(path, spec.target)
    if spec.source in ("npz", "npy"):
        from epochtop.engine.data.tables.numpy_files import read_npy, read_npz

        return (read_npz if spec.source == "npz" else read_npy)(path)
    if spec.source == "images":
        from epochtop.engine.data.images import images

        return images(spec, say)
    from epochtop.engine.data.text import text

    return text(spec)


def _built_in(name: str) -> RawDataset:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    return RawDataset(
        kind="table",
        x=bunch.data,
        y=bunch.target.astype(np.int64),
        loss="cross_entropy",
        classes=tuple(str(name) for name in bunch.target_names),
        columns=tuple(str(name) for name in bunch.feature_names),
        target="target",
        image=(1, 8, 8) if name == "digits" else None,
    )


# --- the split ---------------------------------------------------------------------------------------------
