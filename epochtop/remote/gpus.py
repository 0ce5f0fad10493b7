"""The NVIDIA GPUs of this machine, by nvidia-smi, which prints one line per GPU again and again.

Its process is watched by a thread, because a call into a faulty driver may never return. The lines are sent as they are:
the viewer knows what they mean. Imports the standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

FIELDS = (
    "count", "index", "name", "uuid", "driver_version", "memory.total", "memory.used", "utilization.gpu",
    "temperature.gpu", "power.draw", "power.limit", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem",
    "fan.speed", "pcie.link.gen.max", "pcie.link.width.max",
)  # fmt: skip
"""What is asked, in this order. All drivers know these names; an unknown one would make nvidia-smi refuse the others."""
INTERVAL_S = 2
"""Seconds between two readings."""
AGAIN_S = 30.0
"""Seconds after which nvidia-smi is started again if it has ended."""
ELSEWHERE = ("/usr/lib/wsl/lib/nvidia-smi", "/usr/local/nvidia/bin/nvidia-smi")
"""Where nvidia-smi may be without being on the PATH."""
LONGEST_LINE = 1024
MOST_GPUS = 64
NO_PROGRAM = "no nvidia-smi there"
SILENT = "nvidia-smi does not answer"


class GpuLines:
    """The newest line of each GPU. Starts nvidia-smi at once, if there is one."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._read_at = time.monotonic()
        self._problem = SILENT
        self.is_known = False
        """Whether it is known which GPUs there are."""
        program = shutil.which("nvidia-smi") or next(filter(os.path.exists, ELSEWHERE), "")
        if program:
            threading.Thread(target=self._watch, args=(program,), name="nvidia-smi", daemon=True).start()
        else:
            self._problem, self.is_known = NO_PROGRAM, True

    def newest(self) -> dict[str, Any]:
        """The lines, their age in seconds, and why there are none."""
        age_s = time.monotonic() - self._read_at if self._lines else 0.0
        return {"lines": self._lines, "age_s": round(age_s, 1), "problem": self._problem}

    def _watch(self, program: str) -> None:
        while True:
            self._read_until_it_ends(program)
            self.is_known = True
            time.sleep(AGAIN_S)

    def _read_until_it_ends(self, program: str) -> None:
        command = [program, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits", f"--loop={INTERVAL_S}"]
        try:
            process = subprocess.Popen(  # noqa: S603 - nvidia-smi of the user's PATH, names of ours
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
            )
        except OSError as error:
            self._problem = f"nvidia-smi does not start: {error.strerror}"
            return
        assert process.stdout is not None
        with process.stdout as lines:
            self._take_lines(lines)
        process.wait()

    def _take_lines(self, lines: IO[bytes]) -> None:
        batch: list[str] = []
        for raw in lines:
            line = raw[:LONGEST_LINE].decode("utf-8", "replace").strip()
            if line.count(",") < len(FIELDS) - 1:
                self._problem = line or self._problem  # an error is a sentence
                continue
            batch.append(line)
            if len(batch) >= _count(line):
                self._take(batch)
                batch = []

    def _take(self, batch: list[str]) -> None:
        self._lines, self._read_at, self._problem = batch[:MOST_GPUS], time.monotonic(), ""
        self.is_known = True


def _count(line: str) -> int:
    """Number of GPUs, which is the first field of each line."""
    first = line.partition(",")[0].strip()
    return int(first) if first.isdigit() else 1
