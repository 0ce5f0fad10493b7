"""Plain loops in the ways people write them; prints every loss of each, exactly. Runs with and without hooks."""

from __future__ import annotations

import gc
import os

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ROWS = torch.randn(48, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(48) % 3


def loader() -> DataLoader:
    return DataLoader(TensorDataset(ROWS, LABELS), batch_size=8, shuffle=True)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))


def show(loop: str, *values: torch.Tensor) -> None:
    print(loop, *[value.item().hex() for value in values])


def full_batch() -> None:
    """Most steps have one backward pass and nothing new; some have a second one, or another one within it."""
    from torch.utils.checkpoint import checkpoint

    net, head = nn.Sequential(nn.Linear(4, 8), nn.Tanh()), nn.Linear(8, 3)
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 20, gamma=0.5)
    for number in range(60):
        optimizer.zero_grad()
        rows = ROWS.clone().requires_grad_()
        hidden = checkpoint(net, rows, use_reentrant=True) if number % 3 == 1 else net(rows)
        losses = [nn.functional.cross_entropy(head(hidden), LABELS)]
        losses[0].backward()
        if number in (10, 11, 31):
            losses.append(head(net(ROWS)).square().mean())
            losses[1].backward()
        optimizer.step()
        schedule.step()
        show("full_batch", *losses)


def plain() -> None:
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
    for _ in range(2):
        for x, y in loader():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            schedule.step()
            show("plain", loss)


def accumulation() -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for number, (x, y) in enumerate(loader()):
        loss = nn.functional.cross_entropy(net(x), y)
        (loss / 3).backward()
        losses.append(loss / 3)
        if number % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
            show("accumulation", *losses)
            losses.clear()


def gan() -> None:
    generator, critic = nn.Linear(2, 4), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=0.01)
    optimizer_d = torch.optim.Adam(critic.parameters(), lr=0.02)
    criterion = nn.BCEWithLogitsLoss()
    for x, _ in loader():
        fake = generator(torch.randn(len(x), 2))
        optimizer_d.zero_grad()
        real_loss = criterion(critic(x), torch.ones(len(x), 1))
        real_loss.backward()
        fake_loss = criterion(critic(fake.detach()), torch.zeros(len(x), 1))
        fake_loss.backward()
        optimizer_d.step()
        optimizer_g.zero_grad()
        loss = criterion(critic(fake), torch.ones(len(x), 1))
        loss.backward()
        optimizer_g.step()
        show("gan", real_loss, fake_loss, loss)


def two_optimizers_one_loss() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    first = torch.optim.SGD(net[0].parameters(), lr=0.1)
    second = torch.optim.AdamW(net[2].parameters(), lr=0.01)
    for x, y in loader():
        first.zero_grad()
        second.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        first.step()
        second.step()
        show("two_optimizers_one_loss", loss)


def scaled() -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    for number, (x, y) in enumerate(loader()):
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        if number == 3:  # a scaled loss that the script changes further
            loss = loss / 2
            (scaler.scale(loss * 2) / 2).backward()
        else:
            scaler.scale(loss).backward()
        if number == 4:  # gradients that overflow: the scaler skips the step
            next(net.parameters()).grad[0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        show("scaled", loss)


def closure() -> None:
    net = nn.Linear(4, 3)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=2)
    losses = []

    def evaluate() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(ROWS), LABELS)
        loss.backward()
        losses.append(loss.detach())
        return loss

    for _ in range(4):
        optimizer.step(evaluate)
        show("closure", *losses)
        losses.clear()


def checkpointed() -> None:
    from torch.utils.checkpoint import checkpoint

    net, head = nn.Linear(4, 8), nn.Linear(8, 3)
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.1)
    for x, y in loader():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(checkpoint(net, x.requires_grad_(), use_reentrant=True)), y)
        torch.autograd.backward([loss])
        optimizer.step()
        show("checkpointed", loss)


def compiled() -> None:
    """Prints the number of graphs and of recompilations too."""
    import torch._dynamo
    from torch._dynamo.utils import counters

    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=torch.tensor(0.1))
    forward = torch.compile(net, backend="eager", dynamic=False)
    step = torch.compile(optimizer.step, backend="eager")
    for _ in range(10):
        optimizer.zero_grad(set_to_none=False)
        loss = nn.functional.cross_entropy(forward(ROWS), LABELS)
        loss.backward()
        step()
        show("compiled", loss)

    def whole(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    train = torch.compile(whole, backend="eager", dynamic=False)
    for _ in range(4):
        optimizer.zero_grad(set_to_none=False)
        show("compiled", train(ROWS, LABELS))
    print("graphs", sorted(counters["stats"].items()), "breaks", sum(counters["graph_break"].values()))


LOOPS = (full_batch, plain, accumulation, gan, two_optimizers_one_loss, scaled, closure, checkpointed, compiled)
"""After the first one, a data loader is used, and so no step takes the fast path."""


def main() -> None:
    """Run all loops. With hooks, each has a run of its own, named after it."""
    torch.set_num_threads(1)
    for loop in LOOPS:
        run = None
        if "EPOCHTOP_RUN" in os.environ:
            import epochtop

            run = epochtop.Run(loop.__name__)
        torch.manual_seed(7)
        loop()
        gc.collect()  # optimizers and their schedules refer to each other
        if run is not None:
            run.finish()


if __name__ == "__main__":
    main()
