"""Small tables in the shape of those that people begin with: with names, categories, gaps, and without a heading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.trained_runs import write_table

ROWS = 120


def titanic(path: Path, rows: int = ROWS) -> Path:
    """Names and tickets that identify rows, an age with gaps, a cabin that is mostly missing."""
    draw = np.random.default_rng(1)
    sex, place = draw.choice(["male", "female"], rows), draw.choice(["S", "C", "Q"], rows, p=[0.7, 0.2, 0.1])
    pclass, age = draw.integers(1, 4, rows), draw.integers(1, 80, rows).astype(float)
    survived = ((sex == "female") | (draw.random(rows) < 0.1)).astype(int)
    table = [
        [
            at + 1,
            survived[at],
            pclass[at],
            f"Name{at}, Mr. No {at}",
            sex[at],
            "" if at % 5 == 0 else age[at],
            f"A/{at * 7919}",
            round(float(draw.gamma(2, 15)), 4),
            f"C{at % 9}" if at % 4 == 0 else "",
            "" if at == 61 else place[at],
        ]
        for at in range(rows)
    ]
    names = ("PassengerId", "Survived", "Pclass", "Name", "Sex", "Age", "Ticket", "Fare", "Cabin", "Embarked")
    return write_table(path, names, table)


def adult(path: Path, rows: int = ROWS) -> Path:
    """Categories, some of them `?`, after a comma and a blank."""
    draw = np.random.default_rng(2)
    work = draw.choice(["Private", "State-gov", "Self-emp", "?"], rows)
    education = draw.choice(["Bachelors", "HS-grad", "Masters"], rows)
    age, hours = draw.integers(17, 90, rows), draw.integers(10, 80, rows)
    income = np.where(age + hours + 20 * (education == "Masters") > 100, ">50K", "<=50K")
    table = [[age[at], work[at], education[at], hours[at], income[at]] for at in range(rows)]
    lines = ["age, workclass, education, hours-per-week, income", *(", ".join(map(str, row)) for row in table)]
    path.write_text("\n".join(lines) + "\n")
    return path


def auto_mpg(path: Path, rows: int = ROWS) -> Path:
    """Numbers, `?` for a missing horsepower, and names of cars."""
    draw = np.random.default_rng(3)
    power, weight = draw.integers(45, 230, rows), draw.integers(1600, 5200, rows)
    mpg = np.round(50 - weight / 150 - power / 50, 1)
    table = [
        [
            mpg[at],
            4 + 2 * (at % 3),
            "?" if at % 40 == 7 else power[at],
            weight[at],
            70 + at % 13,
            f"car {at} of make {at % 9}",
        ]
        for at in range(rows)
    ]
    return write_table(path, ("mpg", "cylinders", "horsepower", "weight", "model year", "car name"), table)


def abalone(path: Path, rows: int = ROWS) -> Path:
    """No heading: a letter, measures, and a count of rings in the last column."""
    draw = np.random.default_rng(4)
    length = np.round(draw.uniform(0.1, 0.8, rows), 3)
    rings = np.round(3 + 25 * length + draw.normal(0, 2, rows)).astype(int).clip(1)
    lines = [f"{'MFI'[at % 3]},{length[at]},{round(0.8 * length[at], 4)},{rings[at]}" for at in range(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def house_prices(path: Path, rows: int = ROWS) -> Path:
    """`NA` for what a house has not, a date of sale, a street that is always the same."""
    draw = np.random.default_rng(5)
    area, quality = draw.integers(500, 4000, rows), draw.integers(1, 11, rows)
    zone = draw.choice(["RL", "RM", "FV"], rows)
    price = 20_000 + 80 * area + 9_000 * quality + 30_000 * (zone == "FV") + draw.integers(0, 9_000, rows)
    days = np.datetime64("2006-01-01") + draw.integers(0, 1500, rows)
    table = [
        [
            at + 1,
            zone[at],
            "NA" if at % 6 == 0 else int(draw.integers(20, 120)),
            area[at],
            "Pave",
            "NA" if at % 9 else "Grvl",
            quality[at],
            days[at],
            price[at],
        ]
        for at in range(rows)
    ]
    names = ("Id", "MSZoning", "LotFrontage", "LotArea", "Street", "Alley", "OverallQual", "Sold", "SalePrice")
    return write_table(path, names, table)


LIKE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "titanic": (titanic, "Survived"),
    "adult": (adult, "income"),
    "auto mpg": (auto_mpg, "mpg"),
    "abalone": (abalone, "last"),
    "house prices": (house_prices, "SalePrice"),
}
"""A writer of each table, and its target."""
