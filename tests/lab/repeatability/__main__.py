"""`make lab-check` runs every experiment ten times; `python -m tests.lab.repeatability reads threads --runs 5` some of them.

The exit status is 1 if an experiment fails a check. `--out FILE` writes every verdict and the judgment as JSON.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from epochtop.engine.hardware import usable_cpus
from epochtop.engine.lab.catalog import NAMES
from tests.bench.tables import machine
from tests.lab.repeatability.judge import Judgment, Repeated, Run, decoded, judge
from tests.lab.repeatability.planted import PLANTED

PLANTS = tuple(f"{name}, planted" for name in PLANTED)
BUSY = "import os\nos.sched_setaffinity(0, {%d})\nparent = os.getppid()\nwhile os.getppid() == parent:\n    pass"
"""A program that keeps one CPU busy as long as the process that started it lives."""
LONGEST_S = 300
"""Time after which a run has failed."""


@contextmanager
def busy_neighbor() -> Iterator[None]:
    """A busy loop on one CPU, which the experiments may use too."""
    cpu = min(os.sched_getaffinity(0))
    process = subprocess.Popen([sys.executable, "-c", BUSY % cpu])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def run_once(name: str, home: str) -> Run:
    """One quick run, in processes of its own. Raises RuntimeError if there is no verdict."""
    if name in PLANTS:
        words = ["tests.lab.repeatability.planted", name.partition(",")[0]]
    else:
        words = ["epochtop", "lab", name, "--quick", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env={**os.environ, "EPOCHTOP_HOME": home},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
    if not result.get("verdict"):
        raise RuntimeError(f"{name} has no verdict: {result.get('failure') or done.stderr[-500:]}")
    return decoded(result)


def repeat(names: Sequence[str], runs: int, out: Path | None) -> dict[str, list[Run]]:
    """The runs of each experiment, in turn, so that a change of the load meets all of them. Ctrl-C keeps those so far."""
    results: dict[str, list[Run]] = {name: [] for name in names}
    with busy_neighbor(), TemporaryDirectory(prefix="epochtop-lab-check-") as home, suppress(KeyboardInterrupt):
        for turn in range(runs):
            for name in names:
                started, load = time.monotonic(), os.getloadavg()[0]
                run = run_once(name, home)
                if name in PLANTS:  # they have no run directory, and so no earlier results
                    run = run.after(results[name])
                results[name].append(msgspec.structs.replace(run, load=load))
                sys.stderr.write(f"{turn + 1}/{runs} {name}: {time.monotonic() - started:.0f} s\n")
                write(out, results)
    return {name: of_name for name, of_name in results.items() if of_name}


def write(out: Path | None, results: dict[str, list[Run]]) -> None:
    """Write the results so far, if a file is asked for."""
    if out is not None:
        text = json.dumps(
            document({name: runs for name, runs in results.items() if runs}), indent=1, ensure_ascii=False
        )
        out.write_text(text + "\n", encoding="utf-8")


def show(name: str, judgment: Judgment) -> None:
    """Print the judgment on one experiment."""
    settings = ", ".join(f"{setting or 'no setting'} {count} ×" for setting, count in judgment.settings.items())
    print(f"\n{name}, {judgment.runs} runs: {settings}")
    for one in judgment.estimates:
        print(f"  {_estimate_words(one)}")
    for problem in judgment.problems:
        print(f"  FAILED: {problem}")


def _estimate_words(one: Repeated) -> str:
    truth = f", planted truth in {one.truth_found}" if one.truth_found is not None else ""
    return (
        f"{one.name}: median {one.median:.4g} {one.unit}, in {one.contained} of {one.runs} intervals (width {one.median_width:.2g})"
        f"{truth}; above {one.above}, below {one.below}, undecided {one.open}"
    )


def document(results: dict[str, list[Run]]) -> dict[str, Any]:
    """Everything that was measured, without a path or a name of the machine."""
    judgments = {name: judge(runs) for name, runs in results.items()}
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "usable_cpus": usable_cpus(),
        "neighbor": "a busy loop on one CPU",
        "judgments": {
            name: {**asdict(judgment), "problems": judgment.problems} for name, judgment in judgments.items()
        },
        "verdicts": {name: msgspec.to_builtins(of_name) for name, of_name in results.items()},
    }


def main(words: Sequence[str] | None = None) -> int:
    """Run, judge and print. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.repeatability", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join((*NAMES, *PLANTS))}; all by default")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(words)
    unknown = set(asked.names) - {*NAMES, *PLANTS}
    if unknown:
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    results = repeat(asked.names or (*NAMES, *PLANTS), asked.runs, asked.out)
    judgments = {name: judge(runs) for name, runs in results.items()}
    for name, judgment in judgments.items():
        show(name, judgment)
    return int(any(judgment.problems for judgment in judgments.values()))


if __name__ == "__main__":
    sys.exit(main())
