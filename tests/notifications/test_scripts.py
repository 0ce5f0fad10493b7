"""Messages of a script that records itself: what they say, and that no route can hold the script up."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from epochtop.engine.protocol.events import NOTIFICATION_FAILED, AnyEvent, ScriptEnded, Warned
from tests.recording.scripts import HANGING_S, ROOT, old_python, only_run, recorded, run, start
from tests.support.engines import wait_until
from tests.support.fakes.webhook import Received, Webhook, webhook

SCRIPT = """
    import epochtop, sys, time
    run = epochtop.Run("night")
    for step in range(40):
        run.log(loss=1.0, step=step)
    time.sleep(0.3)
"""


@pytest.fixture
def server() -> Iterator[Webhook]:
    with webhook() as running:
        yield running


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Webhook) -> Path:
    """A configuration with the webhook."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv("EPOCHTOP_CONFIG", str(path))
    configure(path, server.url())
    return path


def configure(path: Path, url: str, *lines: str) -> None:
    path.write_text("\n".join(["[notifications]", f'webhook = "{url}"', *lines]))


def message(request: Received) -> dict[str, object]:
    content = json.loads(request.body)
    assert isinstance(content, dict)
    return content


def sent_of(server: Webhook, event: str) -> dict[str, object]:
    """The message of an event, once it is there. Each has a process of its own, and one may overtake another."""

    def sent() -> list[dict[str, object]]:
        return [each for each in map(message, server.received) if each["event"] == event]

    wait_until(sent)
    return sent()[0]


def warnings(run: Path) -> list[AnyEvent]:
    return [event for event in recorded(run) if isinstance(event, Warned) and event.code == NOTIFICATION_FAILED]


# --- what is sent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "event", "text"),
    [
        pytest.param("", "finished", "", id="end"),
        pytest.param("raise ValueError('no\\x1b[31m rows')", "failed", "ValueError: no [31m rows · ", id="failure"),
        pytest.param("run.log(loss=float('nan')); time.sleep(0.5)", "diverged", "loss is NaN · ", id="nan"),
    ],
)
def test_an_event_is_sent(code: str, event: str, text: str, file: Path, server: Webhook, home: Path) -> None:
    run(f"{SCRIPT}    {code}", home)
    sent = sent_of(server, event)
    assert (sent["name"], sent["title"]) == ("night", f"night: {event}")
    assert (sent["run"], sent["host"]) == (only_run(home).name, socket.gethostname())
    assert str(sent["text"]).startswith(text)
    assert "step 4" in str(sent["text"])


def test_events_that_are_not_configured_are_not_sent(file: Path, server: Webhook, home: Path) -> None:
    configure(file, server.url(), 'events = ["failed"]', "wait_s = 100")
    run(f"{SCRIPT}    run.log(loss=float('nan'))", home)
    run(f"{SCRIPT}    raise ValueError", home)
    assert [message(request)["event"] for request in server.received] == ["failed"]


def test_a_short_run_that_fails_is_reported_and_one_that_finishes_is_not(
    file: Path, server: Webhook, home: Path
) -> None:
    configure(file, server.url(), "shortest_run_s = 3600", "wait_s = 100")
    run(SCRIPT, home)
    run(f"{SCRIPT}    raise ValueError", home)
    assert [message(request)["event"] for request in server.received] == ["failed"]


def test_a_stall_is_reported_while_the_script_runs(file: Path, server: Webhook, home: Path) -> None:
    configure(file, server.url(), "stall_s = 1", "stall_factor = 2")
    code = """
    import epochtop, sys, time
    run = epochtop.Run("night")
    for step in range(12):
        run.log(loss=1.0)
        time.sleep(0.15)
    print("waiting", flush=True)
    sys.stdin.read()
    """
    with start(code, home) as process:
        sent = sent_of(server, "stalled")
        process.communicate()
    assert str(sent["text"]).startswith("no step for ")
    sent_of(server, "finished")


def test_it_works_in_the_oldest_python(file: Path, server: Webhook, home: Path) -> None:
    python = old_python()
    if python is None:
        pytest.skip("there is no Python 3.9 or 3.10 on PATH")
    run(SCRIPT, home, python=python)
    assert message(server.first()[0])["event"] == "finished"


def test_a_script_that_changes_its_folder_and_closes_its_streams(
    file: Path, server: Webhook, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv("EPOCHTOP_CONFIG", "config.toml")
    run(f"{SCRIPT}    import os; os.chdir('/'); [os.close(number) for number in range(3)]", home)
    assert message(server.first()[0])["event"] == "finished"


def test_the_supervisor_of_a_command_reports_its_end_and_the_script_does_not(
    file: Path, server: Webhook, home: Path, tmp_path: Path
) -> None:
    configure(file, server.url(), "wait_s = 100")
    (tmp_path / "script.py").write_text(
        textwrap.dedent(SCRIPT) + "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-P", "-m", "epochtop", "run", "--plain", sys.executable, str(tmp_path / "script.py")]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=HANGING_S)
    (sent,) = map(message, server.received)
    assert sent["event"] == "failed"
    assert str(sent["text"]).startswith("the command was ended by SIGKILL · step 40")


# --- routes that fail --------------------------------------------------------------------------------------


DIVERGED = f"{SCRIPT}    run.log(loss=float('nan'))\n    sys.stdin.readline()"


@pytest.mark.parametrize(
    ("path", "timeout_s", "problem"),
    [
        ("500", 300, "webhook: HTTP status 500"),
        ("hang", 1, "webhook: no answer in 1 s"),
        ("drip", 1, "webhook: no answer in 1 s"),
        ("", 300, "webhook: Connection refused"),
    ],
)
def test_a_webhook_that_fails_is_reported_once_and_never_named(
    path: str, timeout_s: int, problem: str, file: Path, server: Webhook, home: Path
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # a port without a listener, which no other program gets
        url = server.url(path) if path else f"http://127.0.0.1:{silent.getsockname()[1]}/"
        configure(file, url, f"timeout_s = {timeout_s}")
        with start(DIVERGED, home) as process:
            wait_until(lambda: home.exists() and any(warnings(each) for each in home.iterdir()))
            _, errors = process.communicate("\n")
    assert (process.returncode, errors) == (0, "")
    path_of_run = only_run(home)
    (warning,) = warnings(path_of_run)
    assert isinstance(warning, Warned)
    assert warning.message == f"a notification was not sent: {problem}"
    log = path_of_run / "output.log"
    wait_until(lambda: log.read_text() == f"epochtop: a notification was not sent: {problem}\n")
    for each in path_of_run.rglob("*"):
        assert not each.is_file() or url.encode() not in each.read_bytes()


def test_a_webhook_that_hangs_does_not_delay_the_end(file: Path, server: Webhook, home: Path) -> None:
    """A script that waited for the answer would take longer than :func:`run` lets it."""
    configure(file, server.url("hang"), "timeout_s = 300")
    assert run(SCRIPT, home) == (0, "", "")
    server.first()


def test_the_end_waits_for_the_message_if_the_user_wants(file: Path, server: Webhook, home: Path) -> None:
    configure(file, server.url(), "wait_s = 100")
    run(SCRIPT, home)
    assert len(server.received) == 1


def test_the_log_is_complete_when_the_message_is_sent(file: Path, home: Path, tmp_path: Path) -> None:
    """A command that copies the log finds the end in it."""
    copy = tmp_path / "copy.jsonl"
    file.write_text(f'[notifications]\ncommand = ["sh", "-c", "cat {home}/$EPOCHTOP_RUN/events.jsonl > {copy}"]\n')
    run(SCRIPT, home)
    wait_until(lambda: copy.exists() and copy.read_text().endswith("}\n"))
    assert copy.read_text() == (only_run(home) / "events.jsonl").read_text()
    assert isinstance(recorded(only_run(home))[-1], ScriptEnded)
