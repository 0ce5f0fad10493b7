"""Builds the fake libnvidia-ml.so.1 and asks it through the real pynvml, in a process of its own.

The fake is found through LD_LIBRARY_PATH, which counts only when a process starts; it never gets into this one.
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

_ASK = """
import json, msgspec
from epochtop.engine.hardware import Sampler, identify
machine, sampler = identify(patience_s=60), Sampler()
samples = [sampler.sample(patience_s=60) for _ in range(2)]
sampler.close()
print(json.dumps(msgspec.to_builtins([machine, samples[-1]])))
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
        [sys.executable, "-c", code], env=env, input=stdin, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def ask(library: Path, **environment: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The machine and its second sample, as plain values."""
    machine, sample = json.loads(run(library, _ASK, **environment))
    return machine, sample
