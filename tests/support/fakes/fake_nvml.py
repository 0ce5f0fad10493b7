"""Builds the fake libnvidia-ml.so.1 and asks it through the real pynvml, in a process of its own.

The fake is found through LD_LIBRARY_PATH, which counts only when a process starts; it never gets into this one. One server
process per library answers `ask` from a fork, which saves the start of two interpreters. There the child that normally asks
the driver (:mod:`epochtop.engine.hardware.gpu.child`) works in the same process; test_gpu_watchdog.py tests that it is one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("fake_nvml.c")
LIBRARY = "libnvidia-ml.so.1"

# NVML's error codes, from nvml.h
NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND, LOST, RM_MISMATCH, UNKNOWN = (
    3,
    4,
    9,
    13,
    15,
    18,
    999,
)

_SERVER = """
import json, os, sys
import msgspec, pynvml
from epochtop.engine.hardware import Sampler, identify, machine, sampler
from epochtop.engine.hardware.gpu.child import Reporter

class Watch(Reporter):
    identified = 1

    def __init__(self, processes):
        super().__init__(processes, None)
        self.count = len(self.inventory.gpus)

    def identify(self, patience_s):
        return self.inventory

    def sample(self, patience_s):
        return self.report().samples, 0.0

    def close(self):
        self._driver.close()

def answer():
    facts, load = identify(), Sampler()
    samples = [load.sample() for _ in range(2)]
    load.close()
    return json.dumps(msgspec.to_builtins([facts, samples[-1]]))

machine.GpuWatch = sampler.GpuWatch = Watch
for line in sys.stdin:
    if os.fork():
        os.wait()
    else:
        os.environ.update(json.loads(line))
        print(answer(), flush=True)
        os._exit(0)
"""


def build(folder: Path, *flags: str) -> Path:
    """Compile the fake into `folder`; skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux to build the fake NVML")
    command = [compiler, "-shared", "-fPIC", "-w", *flags, "-o", str(folder / LIBRARY), str(SOURCE)]
    subprocess.run(command, check=True)
    return folder


def run(library: Path, code: str, stdin: str = "", **environment: str) -> str:
    """Standard output of `code` in a fresh interpreter that finds the library of `library`; it must succeed."""
    env = {**os.environ, "LD_LIBRARY_PATH": str(library), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, input=stdin, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def print_hardware(library: Path, as_json: bool, **environment: str) -> str:
    """What `epochtop hardware` prints with the library of `library`. A busy machine may take its time to ask the driver."""
    code = (
        "from epochtop.tui.cli.hardware import print_hardware; from epochtop.tui.client import job_advice; "
        f"job_advice.PATIENCE_S = 120; raise SystemExit(print_hardware({as_json}))"
    )
    return run(library, code, **environment)


_servers: dict[Path, subprocess.Popen[str]] = {}


def ask(library: Path, **environment: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The machine and its second sample, as plain values."""
    if library not in _servers:
        close()
        _servers[library] = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            env={**os.environ, "LD_LIBRARY_PATH": str(library)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    server = _servers[library]
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(environment) + "\n")
    server.stdin.flush()
    machine, sample = json.loads(server.stdout.readline())
    return machine, sample


def close() -> None:
    """End the server."""
    while _servers:
        _servers.popitem()[1].communicate()
