"""`python -P forking.py ARGUMENTS` is `python -P -m epochtop ARGUMENTS` whose engines are forked: see :mod:`prefork`.

It runs as a script, so that the import path of the command stays as it is.
"""

import os
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.support.processes import prefork

del sys.path[0]
if prefork.ADDRESS in os.environ:
    prefork.fork_engines()
runpy.run_module("epochtop", run_name="__main__", alter_sys=True)
