"""Work in a forked process, which shares the parent's arrays and sends a pickled answer back through a pipe.

Must never read a data file itself.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable


def fork_to_answer(compute: Callable[[], object]) -> tuple[int, int]:
    """Start a process that pickles the result of `compute`. Returns its id, and the pipe from which to read the answer.

    The pipe ends empty where `compute` raises, or where the process dies.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns about forks in a process with threads
        process = os.fork()
    if process:
        os.close(writer)
        return process, reader
    try:
        os.close(reader)
        answer = compute()
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(answer, pipe, protocol=5)
    finally:
        os._exit(0)  # flushes and closes nothing that belongs to the parent
