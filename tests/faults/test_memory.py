"""Memory that ends × moment: a run says that memory is out, or dies and can be resumed; nothing is left half-written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from epochtop.engine.protocol.events import Failed
from epochtop.engine.protocol.requests import Accepted, Refused
from epochtop.engine.protocol.spec import RunSpec
from epochtop.engine.runs.index import run_paths, summarize
from tests.support.engines import Engine, Watch, losses

LIMITED = """
import resource, sys
import torch
from epochtop.engine.process import standby
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {extra}, used + {extra}))
sys.exit(standby.main())
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits address space as Linux does")


def test_a_run_that_the_limit_stops_says_so(home: Path) -> None:
    """The model fits, its training does not."""
    spec = RunSpec(hidden=(9000, 9000), optimizer="adam", epochs=50, threads=1, device="cpu", executor="eager")
    with Engine(("-c", LIMITED.format(extra=1200 << 20))) as engine:
        answer = engine.begin(spec, home)
        if isinstance(answer, Refused):
            assert "memory" in answer.message
            assert run_paths(home) == []
            return
        assert isinstance(answer, Accepted)
        end = Watch(Path(answer.run)).end()
        assert engine.wait() != 0
    assert isinstance(end, Failed)
    assert "memory" in end.message
    assert summarize(Path(answer.run)).state == "failed"
    assert np.isfinite(losses(Path(answer.run))).all()
