"""`make bench`: every figure, on this machine. Asserts nothing; a figure beside what it must reach is for readers."""

from __future__ import annotations

import datetime

from tests.bench import app, chart, hardware, jobs, loop
from tests.bench.tables import machine


def main() -> None:
    """Print all tables."""
    print(f"# epochtop, {datetime.date.today()}\n\n{machine()}")
    loop.main()
    jobs.main()
    chart.main()
    app.main()
    hardware.main()


if __name__ == "__main__":
    main()
