"""`make bench` prints every figure of this machine; `python -m tests.bench chart app` prints some of them.

A device after a part measures it there: `python -m tests.bench iris cuda`.

It asserts nothing: each figure is printed with its target, for people to judge.
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Callable, Sequence

from tests.bench import app, chart, growth, hardware, iris, jobs, larger, loop, watching
from tests.bench.logs import opening, runs_table
from tests.bench.scripts import recording, unchanged
from tests.bench.tables import machine

PARTS: dict[str, Callable[..., None]] = {
    "iris": iris.main,
    "loop": loop.main,
    "larger": larger.main,
    "jobs": jobs.main,
    "recording": recording.main,
    "unchanged": unchanged.main,
    "watching": watching.main,
    "opening": opening.main,
    "runs": runs_table.main,
    "growth": growth.main,
    "chart": chart.main,
    "app": app.main,
    "attach": app.attach,
    "hardware": hardware.main,
}
IN_APP = "attach"
"""This part is one of the tables of `app`."""
DEVICE = re.compile(r"cpu|cuda(:\d+)?")
"""Names of devices."""


def main(names: Sequence[str] = ()) -> int:
    """Print all tables, or those named in `names`. Returns the exit status."""
    devices = [name for name in names if DEVICE.fullmatch(name)]
    parts = [name for name in names if name not in devices] or [name for name in PARTS if name != IN_APP]
    unknown = [name for name in parts if name not in PARTS]
    if unknown:
        sys.stderr.write(f"no such part: {', '.join(unknown)}; use {', '.join(PARTS)}\n")
        return 2
    if devices and (len(devices) > 1 or parts != ["iris"]):
        sys.stderr.write("only the part iris takes a device, and only one\n")
        return 2
    print(f"# epochtop, {datetime.date.today()}\n\n{machine()}", flush=True)
    for name in parts:
        PARTS[name](*devices)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
