"""`california_housing` is read from scikit-learn's cache, unless another user can write there."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
import pytest

from epochtop.engine.data.load import load
from epochtop.engine.protocol.spec import Invalid, RunSpec

SPEC = RunSpec(dataset="california_housing", scaling="none", test_fraction=0.0)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, with ten districts: value, income, age, rooms, bedrooms, people, households, and place."""
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    rows = np.random.default_rng(1).integers(1, 50, (10, 9)).astype(np.float64)
    rows[0] = [250_000, 8.0, 41, 880, 130, 320, 160, 37.88, -122.23]
    joblib.dump(rows, tmp_path / "cal_housing_py3.pkz", compress=6)
    return tmp_path / "cal_housing_py3.pkz"


def test_california_housing_is_read_from_the_cache(cached: Path) -> None:
    prepared = load(SPEC)
    assert prepared.preparation.columns[:3] == ("MedInc", "HouseAge", "AveRooms")
    assert prepared.preparation.target == "MedHouseVal"
    np.testing.assert_allclose(prepared.train.x[0], [8, 41, 5.5, 0.8125, 320, 2, 37.88, -122.23], rtol=1e-6)
    center, spread = prepared.preparation.target_center, prepared.preparation.target_spread
    assert prepared.train.y[0] * spread + center == pytest.approx(2.5)


def test_a_cache_that_is_absent_or_another_users_is_not_read(cached: Path) -> None:
    cached.chmod(0o666)
    with pytest.raises(Invalid, match="set SCIKIT_LEARN_DATA to a folder of your own"):
        load(SPEC)
    cached.unlink()
    with pytest.raises(Invalid, match="is not in scikit-learn's cache; download it once with: python -c"):
        load(SPEC)
