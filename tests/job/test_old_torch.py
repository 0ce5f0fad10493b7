"""What older versions of torch lack: refused in one sentence, or done another way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch.torch_version import TorchVersion

from epochtop.engine.distributed import launcher
from epochtop.engine.job.prepare import prepare_job
from epochtop.engine.protocol.spec import Invalid, RunSpec


def test_muon_is_refused_where_torch_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.optim.Muon is part of torch 2.9 and later."""
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(Invalid, match=r"muon needs torch 2\.9 or later"):
        prepare_job(RunSpec(optimizer="muon", device="cpu"))


def test_shard_is_refused_where_torch_cannot_shard_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fully_shard` of torch 2.6 fails on the CPU: its streams cannot record events."""
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.6.0+cu124"))
    with pytest.raises(Invalid, match=r"shard: needs torch 2\.7 or later, and this is torch 2\.6\.0"):
        prepare_job(RunSpec(shard=True, processes=2, device="cpu"))


@pytest.mark.parametrize(
    ("version", "libuv"), [("2.6.0+cu124", False), ("2.7.1", False), ("2.8.0", True), ("2.11.0", True)]
)
def test_the_store_of_the_ranks_works_in_every_version(
    version: str, libuv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With libuv, older versions print an error to the user's terminal and raise."""
    store_of_torch, chosen = dist.TCPStore, []  # type: ignore[attr-defined]

    def store(*arguments: Any, **options: Any) -> Any:
        if options["is_master"]:
            chosen.append(options["use_libuv"])
        return store_of_torch(*arguments, **options)

    monkeypatch.setattr(dist, "TCPStore", store)
    if libuv and torch.__version__ < "2.8":
        pytest.skip("this torch cannot give libuv a socket")
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    leader, port = launcher.open_store()
    leader.set("key", "value")
    assert launcher.reach_store(port).get("key") == b"value"
    assert chosen == [libuv]
