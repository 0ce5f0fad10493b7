"""What older versions of torch lack: refused in one sentence, or done another way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import distributed as dist

from epochtop.engine.distributed import launcher
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.spec import Invalid, RunSpec


def test_muon_is_refused_where_torch_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.optim.Muon is part of torch 2.9 and later."""
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(Invalid, match=r"muon needs torch 2\.9 or later"):
        prepare_job(RunSpec(optimizer="muon", device="cpu"))


def test_a_store_without_libuv_serves_where_libuv_takes_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.6 raises NotImplementedError for a socket that listens already."""
    store_of_torch, kinds = dist.TCPStore, []  # type: ignore[attr-defined]

    def store(*arguments: Any, **options: Any) -> Any:
        kinds.append(options.get("use_libuv"))
        if options.get("use_libuv"):
            raise NotImplementedError("libuv does not support initialization with an listen fd")
        return store_of_torch(*arguments, **options)

    monkeypatch.setattr(dist, "TCPStore", store)
    leader, port = launcher.open_store()
    leader.set("key", "value")
    assert launcher.reach_store(port).get("key") == b"value"
    assert kinds == [True, False, None]
