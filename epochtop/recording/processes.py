"""Which of several processes records: rank 0 only, and no process that imports the script again.

Imports built-in modules only.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "LOCAL_RANK")
"""Variables with the number of a process, as torchrun, SLURM and MPI set them; the first one that is set counts."""


def rank() -> int:
    """Number of this process among those that train together; 0 if it trains alone."""
    torch = sys.modules.get("torch.distributed")
    try:
        if torch is not None and torch.is_available() and torch.is_initialized():
            return int(torch.get_rank())
    except Exception:
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
