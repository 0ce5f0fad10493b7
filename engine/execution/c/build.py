"""From C code to a function, with the machine's C compiler. Built programs are cached."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, PIPE
from time import monotonic
from typing import Any

import psutil

from epochtop.engine.execution.executor import Unsupported
from epochtop.engine.runs.files import remove_old
from epochtop.engine.runs.ownership import CacheFolder, risk_of, temporary_folder, trusted_cache

FLAGS = (
    *("-O2", "-std=gnu11", "-fPIC", "-shared", "-w"),
    # sums may be reordered; NaN and infinity keep their meaning
    *("-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros"),
)
GCC = ("-march=native", "-ftree-vectorize", "-fvect-cost-model=dynamic")
"""As fast as -O3 for these programs, in a third of the build time."""
VECTOR_MATH = ("-DVECTOR_MATH", "-Wl,--no-as-needed", "-lmvec")
"""glibc's vectorized exp and log."""
TRIES = ((*GCC, *VECTOR_MATH), GCC, ("-march=native",), ("-mcpu=native",), ())
"""Additional flags, fastest first: not every compiler and linker supports them all."""
BUILD_S = 60.0
"""Time limit of the compiler, in seconds of processor time: on a busy machine it may wait for a processor far longer."""
WAIT_S = 600.0
"""Time limit of the compiler on the clock: one that waits for a disk uses no processor time."""
POLL_S = 0.5
_PARTIAL = re.compile(r"[0-9a-f]{32}\.\d+\.part")
"""Programs that are being built."""


def load(source: str) -> Any:
    """The function `run` of a program, built unless it is cached. Raises Unsupported if it cannot be built.

    A cached program that other users could have written is not loaded but built again. If the cache cannot be used, the
    program is built in a temporary folder.
    """
    try:
        return _function(source, _place(source))
    except OSError as cached:
        try:
            return _function(source, temporary_folder() / _name(source))
        except OSError as error:
            raise Unsupported(
                f"a compiled program can be kept neither in the cache ({cached}) nor elsewhere: {error}"
            ) from None


def _function(source: str, path: Path) -> Any:
    """The function of the program at `path`, built if it is missing. Raises OSError, Unsupported."""
    if not path.exists() or risk_of(path) is not None:
        _build(source, path)
    return ctypes.CDLL(str(path)).run


def folder() -> CacheFolder:
    """Where built programs are cached; some 20 KB each."""
    return trusted_cache("graphs")


def remove_left_overs() -> None:
    """Remove programs that a killed compiler left incomplete."""
    remove_old(folder().path, _PARTIAL)


def _place(source: str) -> Path:
    return folder().path / _name(source)


def _name(source: str) -> str:
    """The file name of a program: what it depends on."""
    key = "\n".join((source, _version(compiler()), *FLAGS, _cpu()))
    return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"


def _build(source: str, path: Path) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_left_overs()
        error = ""
        for flags in TRIES:
            error = _compile(source, part, flags)
            if not error:
                break
        if error:
            raise Unsupported(f"{compiler()} does not build it: {error}")
        part.chmod(0o700)
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _compile(source: str, output: Path, flags: tuple[str, ...]) -> str:
    """Compile to `output`. Returns the compiler's first error; empty if it succeeded."""
    command = [compiler(), *FLAGS, "-x", "c", "-", "-o", str(output), *flags, "-lm"]
    with subprocess.Popen(command, stdin=PIPE, stdout=DEVNULL, stderr=PIPE, text=True) as process:  # noqa: S603 - $CC or cc
        error = _output(process, source)
    lines = [line for line in error.splitlines() if "error" in line] or error.splitlines() or ["no reason"]
    return "" if process.returncode == 0 else lines[0]


def _output(process: subprocess.Popen[str], source: str) -> str:
    """What the compiler prints. Raises Unsupported after its time limit, and ends it."""
    end_s = monotonic() + WAIT_S
    unsent: str | None = source
    while True:
        try:
            return process.communicate(unsent, timeout=POLL_S)[1]
        except subprocess.TimeoutExpired:
            unsent = None
            if (late := monotonic() > end_s) or _processor_s(process.pid) > BUILD_S:
                _kill(process.pid)
                limit_s = WAIT_S if late else BUILD_S
                raise Unsupported(f"{compiler()} needs more than {limit_s:.0f} s to build it") from None


def _processor_s(pid: int) -> float:
    """Processor time of a process and the processes that it started, in seconds."""
    total = 0.0
    with contextlib.suppress(psutil.Error):
        whole = psutil.Process(pid)
        total += sum(whole.cpu_times()[:4])
        for child in whole.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                total += sum(child.cpu_times()[:2])
    return total


def _kill(pid: int) -> None:
    """End a process and the processes that it started."""
    with contextlib.suppress(psutil.Error):
        whole = psutil.Process(pid)
        for process in (*whole.children(recursive=True), whole):
            with contextlib.suppress(psutil.Error):
                process.kill()


@cache
def compiler() -> str:
    """Path of the C compiler. Raises Unsupported if there is none."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise Unsupported("no C compiler was found (cc, gcc, clang or $CC)")


@cache
def _version(path: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - $CC or cc
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unsupported(f"{path} --version failed: {error}") from None
    return done.stdout


@cache
def _cpu() -> str:
    """The processor that programs are built for: several machines may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    keys = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(keys)))
