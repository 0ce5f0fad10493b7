"""C code to a function that can be called: the machine's own compiler, once for every program, kept in the cache folder."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from epochtop.engine.data.downloads.cache import cache_folder
from epochtop.engine.execution.executor import Unsupported

FLAGS = (
    *("-O2", "-std=gnu11", "-fPIC", "-shared", "-w"),
    # sums may be taken in another order; NaN and infinity stay what they are
    *("-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros"),
)
GCC = ("-march=native", "-ftree-vectorize", "-fvect-cost-model=dynamic")
"""As fast as -O3 here, and built in a third of the time."""
VECTOR_MATH = ("-DVECTOR_MATH", "-Wl,--no-as-needed", "-lmvec")
"""glibc's exp and log of several numbers at once."""
TRIES = ((*GCC, *VECTOR_MATH), GCC, ("-march=native",), ("-mcpu=native",), ())
"""Further flags, the fastest first: not every compiler and linker knows them all."""
BUILD_S = 60.0


def load(source: str) -> Any:
    """The function `run` of a program, which is built unless it is kept already. Raises Unfit where it cannot be."""
    path = _place(source)
    if not path.exists():
        _build(source, path)
    try:
        return ctypes.CDLL(str(path)).run
    except OSError as error:
        raise Unsupported(f"what the C compiler made cannot be loaded: {error}") from None


def folder() -> Path:
    """Where built programs are kept; some 20 KB each."""
    return cache_folder() / "graphs"


def _place(source: str) -> Path:
    key = "\n".join((source, _version(compiler()), *FLAGS, _cpu()))
    return folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.so"


def _build(source: str, path: Path) -> None:
    made = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        wrong = ""
        for further in TRIES:
            wrong = _run(source, made, further)
            if not wrong:
                break
        if wrong:
            raise Unsupported(f"{compiler()} does not build it: {wrong}")
        made.replace(path)
    except OSError as error:
        raise Unsupported(f"it cannot be kept in {path.parent}: {error.strerror or error}") from None
    finally:
        made.unlink(missing_ok=True)


def _run(source: str, made: Path, further: tuple[str, ...]) -> str:
    """Empty if it went well, else what the compiler says first."""
    command = [compiler(), *FLAGS, "-x", "c", "-", "-o", str(made), *further, "-lm"]
    try:
        done = subprocess.run(command, input=source, capture_output=True, text=True, timeout=BUILD_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unsupported(f"{compiler()} takes more than {BUILD_S:.0f} s for it") from None
    lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no reason"]
    return "" if done.returncode == 0 else lines[0]


@cache
def compiler() -> str:
    """Where it is. Raises Unfit where there is none."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise Unsupported("it is written in C, and no C compiler was found (cc, gcc, clang or $CC)")


@cache
def _version(path: str) -> str:
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unsupported(f"{path} does not answer: {error}") from None
    return done.stdout


@cache
def _cpu() -> str:
    """What the code is made for: a home folder may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))
