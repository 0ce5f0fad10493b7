"""A loop that reads tensors in every way, until it is told to stop; line numbers matter to the test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
data = TensorDataset(torch.randn(32, 4), torch.arange(32) % 3)
stop = Path(sys.argv[1])

while not stop.exists():
    for x, y in DataLoader(data, batch_size=8):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        loss.item()  # read: item()
        loss.detach().reshape(1).tolist()  # read: tolist()
        float(loss)  # read: float()
        if loss > 100:  # read: bool()
            break
        loss.detach().cpu()  # read: cpu()
        loss.detach().numpy()  # read: numpy()
        print(loss.detach(), file=sys.stderr)  # read: print()
        f"{loss.detach():.3f}"  # read: format()

own = [name for name in ("item", "tolist", "__bool__", "__float__", "cpu") if name in torch.Tensor.__dict__]
print("left behind:", own, torch.nn.Module.__call__.__name__, os.getpid() > 0)
