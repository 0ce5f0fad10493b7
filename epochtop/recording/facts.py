"""Facts that are stored with a script's run: command, versions, environment, state of its git repository.

They are quick to find and are there when the run starts; :mod:`epochtop.recording.later.facts` adds the rest. Imports built-in
modules only.
"""

from __future__ import annotations

import os
import sys

from epochtop.configuration.regular import open_regular, read_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "CONDA_DEFAULT_ENV",
    "VIRTUAL_ENV",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "OMP_NUM_THREADS",
)
"""Variables that describe a job."""
PREFIXES = ("SLURM_JOB", "SLURM_ARRAY", "SLURM_NNODES", "SLURM_NTASKS", "SLURM_CLUSTER", "PBS_JOB", "LSB_JOB", "JOB_ID")
"""Beginnings of names of variables that batch systems set."""
RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "LOCAL_RANK")
"""Variables with the number of a process, as torchrun, SLURM and MPI set them; the first one that is set counts."""
VALUE_LENGTH = 4096
"""Most characters of a stored text."""


def of_script() -> dict[str, Any]:
    """What the record of a script says about its process, as docs/run-format.md describes it."""
    folder = working_folder()
    return {
        "command": command(),
        "working_folder": folder,
        "python": interpreter(),
        "environment": environment(),
        "git": git_state(folder) if folder else None,
    }


def script_name() -> str:
    """Name of the running program: its file without the ending, `notebook`, or `python`."""
    program = sys.argv[0] if sys.argv else ""
    name = os.path.splitext(os.path.basename(program))[0]
    if name in ("ipykernel_launcher", "colab_kernel_launcher"):
        return "notebook"
    if name == "__main__":  # python -m package
        name = os.path.basename(os.path.dirname(program))
    return "python" if name in ("", "-c", "-") else name


def command() -> list[str]:
    """Command line of this process, with the interpreter."""
    words = getattr(sys, "orig_argv", None) or [sys.executable, *sys.argv]
    return [word[:VALUE_LENGTH] for word in words[:1000]]


def interpreter() -> str:
    """Path of the interpreter; empty if it is unknown."""
    return sys.executable or ""


def working_folder() -> str:
    """Current folder; empty if it has been deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def environment() -> dict[str, str]:
    """Variables that describe the job, by name."""
    names = [name for name in os.environ if name in VARIABLES or name.startswith(PREFIXES)]
    return {name: os.environ[name][:VALUE_LENGTH] for name in sorted(names)}


def versions() -> dict[str, str]:
    """Version by name of Python and of the packages that are loaded and state one."""
    versions = {"python": sys.version.partition(" ")[0]}
    for name, module in list(sys.modules.items()):
        if "." in name or name.startswith("_"):
            continue
        version = getattr(module, "__dict__", {}).get("__version__")
        if type(version) is not str and name == "torch":
            version = str(version)  # a subclass of str
        if type(version) is str and name not in _standard_library():
            versions[name] = version[:80]
    return versions


def _standard_library() -> frozenset[str]:
    return getattr(sys, "stdlib_module_names", frozenset(("re", "json", "csv", "logging", "argparse", "decimal", "zlib", "ctypes", "platform", "tarfile", "ipaddress", "optparse", "xmlrpc", "pyexpat")))  # fmt: skip


# --- which of several processes this is ---------------------------------------------------------------------


def rank() -> int:
    """Number of this process among those that train together; 0 if it trains alone."""
    torch = sys.modules.get("torch.distributed")
    try:
        if torch is not None and torch.is_available() and torch.is_initialized():
            return int(torch.get_rank())
    except Exception:  # noqa: S110 - a torch that is not what it seems; the environment tells the rank too
        pass
    for variable in RANKS:
        value = os.environ.get(variable, "").strip()
        if value.isdigit():
            return int(value)
    return 0


def is_import_of_main() -> bool:
    """Whether this process was spawned by multiprocessing and imports the script again, as DataLoader workers may."""
    if "multiprocessing.spawn" not in sys.modules:
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__mp_main__":
            return True
        frame = frame.f_back
    return False


# --- git -----------------------------------------------------------------------------------------------------


def git_state(folder: str) -> dict[str, Any] | None:
    """Commit, branch and remote of the repository that holds a folder, read from its files; None outside a repository.

    Whether files are changed is left open (`dirty` is None).
    """
    try:
        git = _git_folder(folder)
        if git is None:
            return None
        common = _first_line(os.path.join(git, "commondir"))
        shared = os.path.normpath(os.path.join(git, common)) if common else git
        head = _first_line(os.path.join(git, "HEAD"))
        reference = head[5:].strip() if head.startswith("ref:") else ""
        commit = _resolve(git, shared, reference) if reference else head
        if not commit:
            return None
        branch = reference[len("refs/heads/") :] if reference.startswith("refs/heads/") else ""
        return {"commit": commit, "branch": branch, "dirty": None, "remote": _remote(shared)}
    except (OSError, ValueError):
        return None


def _git_folder(folder: str) -> str | None:
    while True:
        candidate = os.path.join(folder, ".git")
        if os.path.isdir(candidate):
            return candidate
        if os.path.isfile(candidate):  # a worktree or a submodule
            link = _first_line(candidate)
            return os.path.normpath(os.path.join(folder, link[7:].strip())) if link.startswith("gitdir:") else None
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def _first_line(path: str) -> str:
    """The first line of a file; empty if there is none."""
    try:
        file = open_regular(path)
    except OSError:
        return ""
    try:
        return os.read(file, 4096).partition(b"\n")[0].decode("utf-8", "replace").strip()
    finally:
        os.close(file)


def _resolve(git: str, shared: str, reference: str) -> str:
    """The commit of a reference; empty if it has none yet."""
    for folder in (git, shared):
        if commit := _first_line(os.path.join(folder, reference)):
            return commit
    try:
        packed = _lines(os.path.join(shared, "packed-refs"))
    except OSError:
        return ""
    pairs = (line.partition(" ") for line in packed)
    return next((commit for commit, _, name in pairs if name == reference), "")


def _remote(shared: str) -> str:
    """Address of the remote `origin`, without credentials; empty if there is none."""
    section = ""
    for line in _lines(os.path.join(shared, "config")):
        if line.startswith("["):
            section = line
        elif section == '[remote "origin"]' and line.partition("=")[0].strip() == "url":
            return without_credentials(line.partition("=")[2].strip())
    return ""


def _lines(path: str) -> list[str]:
    """The lines of a file, without spaces around them. Raises OSError."""
    return [line.strip() for line in read_regular(path).decode("utf-8", "replace").split("\n")]


def without_credentials(address: str) -> str:
    """An address without user name and password, except the `git@` of ssh."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    authority, slash, path = rest.partition("/")
    return scheme + separator + authority.rpartition("@")[2] + slash + path
