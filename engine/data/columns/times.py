"""Dates and times: reading their texts, and the parts of them that a model gets.

Texts follow ISO 8601 or one of the formats of FORMATS, the same for a whole column. Must never read the clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from epochtop.engine.data.dataset import TimePart

PARTS: tuple[TimePart, ...] = ("days", "year", "month", "weekday", "hour")
CYCLES: dict[TimePart, float] = {"month": 12.0, "weekday": 7.0, "hour": 24.0}
"""Length of the cycle of each cyclic part, which becomes a sine and a cosine."""
ISO = "iso"
DAY_S = 86400.0

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?)?( ?(Z|[+-]\d{2}:?\d{2}))?")
_DATES = ("%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%Y", "%d.%m.%y", "%m-%d-%Y", "%d-%m-%Y",
          "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y")  # fmt: skip
_HOURS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
FORMATS = (ISO, *(f"{date}{hour}" for date in _DATES for hour in _HOURS))
"""Formats in the order in which they are tried: where day and month could be either, the month comes first with `/`."""

Times = npt.NDArray[np.datetime64]


def time_format(texts: Sequence[str], more: Sequence[str] = ()) -> str | None:
    """The first format that reads every text, also of those in `more`; None if none does."""
    if not texts or not any(letter.isdigit() for letter in texts[0]):
        return None
    likely = [name for name in (*FORMATS, *more) if parse_time(texts[0], name) is not None]
    return next((name for name in likely if all(parse_time(text, name) is not None for text in texts)), None)


def parse_time(text: str, name: str) -> datetime | None:
    """A time in UTC, without a time zone; None if `text` is not written in format `name`."""
    try:
        if name != ISO:
            return datetime.strptime(text, name)
        if _ISO.fullmatch(text) is None:
            return None
        moment = datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-").replace(" Z", "Z"))
    except ValueError:
        return None
    try:
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        return None


def times_of(texts: Sequence[str], name: str) -> Times:
    """datetime64[us] (texts,) of texts in format `name`; NaT for others."""
    return np.array([parse_time(text, name) for text in texts], dtype="datetime64[us]")


def seconds_of(times: Times) -> npt.NDArray[np.float64]:
    """Seconds since 1970, NaN for NaT, exact to a microsecond for this millennium."""
    seconds = times.astype("datetime64[us]").astype(np.int64) / 1e6
    return np.where(np.isnat(times), np.nan, seconds)


def part_of(seconds: npt.NDArray[np.float64], part: TimePart, origin: float = 0.0) -> npt.NDArray[np.float64]:
    """One part of times in seconds since 1970, none of them NaN; days are counted from `origin`, months and weekdays from 0."""
    if part == "days":
        return (seconds - origin) / DAY_S
    if part == "hour":
        return np.asarray(np.mod(seconds, DAY_S) / 3600)
    if part == "weekday":
        return np.asarray(np.mod(np.floor(seconds / DAY_S) + 3, 7))  # 1970 began on a Thursday
    months = np.floor(seconds).astype(np.int64).astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    return np.asarray((months % 12 if part == "month" else months // 12 + 1970).astype(np.float64))
