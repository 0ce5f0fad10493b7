"""What each route receives, in the format of its service."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from epochtop.configuration.keys import KEYS
from epochtop.notifications.routes import Message, send
from tests.support.fakes.webhook import Webhook, webhook

MESSAGE = Message("failed", "résnet\n<b>", "no rows & no columns", run="resnet-1234", host="box", step=7)


@pytest.fixture
def server() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


def values(**given: Any) -> dict[str, Any]:
    return {key.name: key.default for key in KEYS} | {f"notifications.{name}": value for name, value in given.items()}


def test_ntfy_gets_a_title_a_text_tags_and_a_priority(server: Webhook) -> None:
    assert send(MESSAGE, values(webhook=server.url(), webhook_format="ntfy", webhook_token="tk_1")) == {"webhook": ""}
    (request,) = server.received
    title = request.headers["Title"]
    assert base64.b64decode(title.removeprefix("=?UTF-8?B?").removesuffix("?=")).decode() == "résnet <b>: failed"
    assert (request.headers["Priority"], request.headers["Tags"]) == ("high", "x")
    assert request.headers["Authorization"] == "Bearer tk_1"
    assert request.body.decode() == "no rows & no columns (box)"


def test_slack_gets_text_with_its_special_characters_escaped(server: Webhook) -> None:
    assert send(MESSAGE, values(webhook=server.url(), webhook_format="slack")) == {"webhook": ""}
    (request,) = server.received
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body) == {"text": "*résnet &lt;b&gt;: failed*\nno rows &amp; no columns (box)"}
    assert "Authorization" not in request.headers


def test_json_has_every_fact(server: Webhook) -> None:
    assert send(MESSAGE, values(webhook=server.url())) == {"webhook": ""}
    assert json.loads(server.received[0].body) == {
        "event": "failed",
        "title": "résnet <b>: failed",
        "text": "no rows & no columns",
        "name": "résnet <b>",
        "run": "resnet-1234",
        "host": "box",
        "step": 7,
    }


def test_a_command_gets_arguments_environment_and_standard_input(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    code = "import json, os, sys; json.dump([sys.argv[2:], os.environ['EPOCHTOP_TITLE'], json.load(sys.stdin)], open(sys.argv[1], 'w'))"
    command = (sys.executable, "-c", code, str(output), "{event}", "{name}!", "{other} {", "{text}")
    assert send(MESSAGE, values(command=command)) == {"command": ""}
    arguments, title, content = json.loads(output.read_text())
    assert arguments == ["failed", "résnet <b>!", "{other} {", "no rows & no columns"]
    assert title == content["title"] == "résnet <b>: failed"


@pytest.mark.parametrize(
    ("command", "timeout_s", "problem"),
    [
        (("/no/such",), 240.0, "/no/such: No such file or directory"),
        (("false",), 240.0, "false: exit status 1"),
        (("sh", "-c", "sleep 1000 & wait"), 0.2, "sh: not done in 0.2 s"),
    ],
    ids=["missing", "failing", "hanging"],
)
def test_a_command_that_fails_is_reported(command: tuple[str, ...], timeout_s: float, problem: str) -> None:
    assert send(MESSAGE, values(command=command, timeout_s=timeout_s)) == {"command": problem}


def test_without_a_route_nothing_is_sent() -> None:
    assert send(MESSAGE, values()) == {}
