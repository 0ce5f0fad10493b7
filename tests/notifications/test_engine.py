"""Messages about runs that the engine trains."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from epochtop.engine.protocol.events import AnyEvent, Finished
from epochtop.engine.protocol.spec import RunSpec
from tests.support.engines import Engine, events
from tests.support.fakes.webhook import Webhook, webhook

SPEC = RunSpec(name="iris", threads=1, device="cpu", executor="eager", epochs=60)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with webhook() as running:
        path = tmp_path / "config.toml"
        path.write_text(f'[notifications]\nwebhook = "{running.url()}"\nwait_s = 100\n')
        monkeypatch.setenv("EPOCHTOP_CONFIG", str(path))
        yield running


def trained(spec: RunSpec, home: Path) -> list[AnyEvent]:
    with Engine() as engine:
        run = engine.train(spec, home)
        engine.wait()
    return events(run)


def test_the_end_of_a_run_is_sent(server: Webhook, home: Path) -> None:
    end = trained(SPEC, home)[-1]
    assert isinstance(end, Finished)
    (request,) = server.received
    sent = json.loads(request.body)
    assert (sent["event"], sent["title"], sent["step"]) == ("finished", "iris: finished", 60)
    assert f"train/loss {end.final_loss:.5g}" in sent["text"]


def test_a_divergence_is_sent_once(server: Webhook, home: Path, tmp_path: Path) -> None:
    rows = "".join(f"{row},{row % 7},{(row * row) % 11}\n" for row in range(50))
    (tmp_path / "table.csv").write_text(f"a,b,c\n{rows}")
    spec = msgspec.structs.replace(
        SPEC, dataset=f"csv:{tmp_path}/table.csv", target="c", problem="regression", hidden=(3,), learning_rate=1e6
    )
    end = trained(spec, home)[-1]
    assert isinstance(end, Finished)
    assert end.outcome == "diverged"
    assert [json.loads(request.body)["event"] for request in server.received] == ["diverged"]


def test_a_webhook_that_fails_is_reported_in_output_log(server: Webhook, home: Path) -> None:
    configuration = Path(os.environ["EPOCHTOP_CONFIG"])
    configuration.write_text(configuration.read_text().replace("/200", "/500"))
    assert isinstance(trained(SPEC, home)[-1], Finished)
    (log,) = home.glob("*/output.log")
    assert log.read_text().endswith("epochtop: a notification was not sent: webhook: HTTP status 500\n")
