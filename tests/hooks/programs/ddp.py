"""Two ranks on the CPU with gloo; prints every loss of rank 0, exactly."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(3)
    net = DistributedDataParallel(nn.Linear(4, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    rows = torch.randn(8, 4) + dist.get_rank()
    for _ in range(6):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(rows), torch.arange(8) % 3)
        loss.backward()
        optimizer.step()
        if os.environ["RANK"] == "0":
            print(loss.item().hex(), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
