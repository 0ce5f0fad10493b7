"""Tables that scikit-learn brings or keeps in its cache. Never downloads, and never imports torch.

Files in the cache are pickles, so one that another user could have written is never opened.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from epochtop.engine.data.dataset import RawDataset
from epochtop.engine.protocol.datasets import CACHED
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.ownership import risk_of

CACHE_FILES = {"california_housing": "cal_housing_py3.pkz"}
"""Names of scikit-learn's files."""


def read_sklearn(name: str) -> RawDataset:
    """The table called `name`. Raises Invalid if it is not in the cache."""
    from sklearn import datasets

    if name in CACHED:
        return _cached(name)
    bunch = getattr(datasets, f"load_{name}")()
    classes = tuple(map(str, bunch.get("target_names", ())))
    return RawDataset(
        kind="table",
        x=bunch.data,
        y=bunch.target.astype(np.int64 if classes else np.float64),
        loss="cross_entropy" if classes else "mean_squared_error",
        classes=classes,
        columns=tuple(map(str, bunch.feature_names)),
        target="target",
        image=(1, 8, 8) if name == "digits" else None,
    )


def _cached(name: str) -> RawDataset:
    from sklearn import datasets

    risk = risk_of(Path(datasets.get_data_home()) / CACHE_FILES[name])
    if risk is not None:
        raise Invalid(
            "dataset", f"{risk}, so {name} is not read from it; set SCIKIT_LEARN_DATA to a folder of your own"
        )
    try:
        bunch = getattr(datasets, f"fetch_{name}")(download_if_missing=False)
    except OSError:
        command = f'python -c "from sklearn.datasets import fetch_{name} as fetch; fetch()"'
        raise Invalid("dataset", f"{name} is not in scikit-learn's cache; download it once with: {command}") from None
    return RawDataset(
        kind="table",
        x=bunch.data,
        y=bunch.target.astype(np.float64),
        loss="mean_squared_error",
        columns=tuple(map(str, bunch.feature_names)),
        target=str(bunch.target_names[0]),
    )
