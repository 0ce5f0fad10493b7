"""Sends one message through the configured routes: a webhook, a command. Blocks up to the time-out of each.

Used by the child process and by `epochtop notify --test`. Errors never quote the URL, whose path is often a secret. Imports
the standard library only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

TAGS = {
    "finished": "white_check_mark",
    "stopped": "stop_button",
    "failed": "x",
    "diverged": "warning",
    "stalled": "zzz",
}
"""Emoji of ntfy."""
PRIORITIES = {"failed": "high", "diverged": "high", "stalled": "high"}
"""Priorities of ntfy; others are default."""


class Message:
    """A message to people."""

    def __init__(self, event: str, name: str, text: str, *, run: str = "", host: str = "", step: int = 0) -> None:
        """`name` is the run's display name, `run` its id."""
        self.event, self.name, self.text = event, plain(name), plain(text)
        self.run, self.host, self.step = plain(run), plain(host), step

    @property
    def title(self) -> str:
        """One line that says what happened."""
        return f"{self.name}: {self.event}"

    @property
    def fields(self) -> dict[str, Any]:
        """All facts, as the format `json` has them."""
        names = ("event", "title", "text", "name", "run", "host", "step")
        return {name: getattr(self, name) for name in names}


def plain(text: str) -> str:
    """Text without characters that control a terminal or cannot be seen."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def send(message: Message, values: Mapping[str, Any]) -> dict[str, str]:
    """Send a message through every configured route. Returns what went wrong by route; empty text if nothing did."""
    results = {}
    timeout_s = values["notifications.timeout_s"]
    if values["notifications.webhook"]:
        results["webhook"] = _try_webhook(message, values, timeout_s)
    if values["notifications.command"]:
        results["command"] = _try_command(message, values["notifications.command"], timeout_s)
    return results


# --- webhook -------------------------------------------------------------------------------------------------


def webhook_request(message: Message, values: Mapping[str, Any]) -> urllib.request.Request:
    """The request for a message, in the configured format."""
    form = values["notifications.webhook_format"]
    headers = {"User-Agent": "epochtop"}
    if values["notifications.webhook_token"]:
        headers["Authorization"] = f"Bearer {values['notifications.webhook_token']}"
    if form == "ntfy":  # https://docs.ntfy.sh/publish/
        headers["Title"] = _header(message.title)
        headers["Tags"] = TAGS.get(message.event, "bell")
        headers["Priority"] = PRIORITIES.get(message.event, "default")
        headers["Content-Type"] = "text/plain; charset=utf-8"
        body = f"{message.text} ({message.host})".encode()
    else:
        headers["Content-Type"] = "application/json"
        content = {"text": slack_text(message)} if form == "slack" else message.fields
        body = json.dumps(content).encode()
    url = values["notifications.webhook"]
    return urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - config.toml takes http and https


def slack_text(message: Message) -> str:
    """Text of Slack's incoming webhooks, which have three special characters."""
    title, text, host = (_slack_escape(part) for part in (message.title, message.text, message.host))
    return f"*{title}*\n{text} ({host})"


def _slack_escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _header(text: str) -> str:
    """Text of a header: RFC 2047 if it is not ASCII."""
    return text if text.isascii() else f"=?UTF-8?B?{base64.b64encode(text.encode()).decode()}?="


def _try_webhook(message: Message, values: Mapping[str, Any], timeout_s: float) -> str:
    try:
        request = webhook_request(message, values)
        with _limit(timeout_s), urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310 - see the request
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP status {error.code}"
    except TimeoutError:
        return f"no answer in {timeout_s:g} s"
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, TimeoutError):
            return f"no answer in {timeout_s:g} s"
        return (reason.strerror if isinstance(reason, OSError) else "") or type(reason).__name__
    except Exception as error:  # http.client and ssl have many
        return type(error).__name__


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread after this time: a server may send one byte at a time for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# --- command ---------------------------------------------------------------------------------------------------


def _try_command(message: Message, command: tuple[str, ...], timeout_s: float) -> str:
    """Start a program with the message in its arguments, in its environment and, as JSON, on its standard input."""
    fields = {name: str(value) for name, value in message.fields.items()}
    arguments = [_filled(argument, fields) for argument in command]
    environment = {**os.environ, **{f"EPOCHTOP_{name.upper()}": value for name, value in fields.items()}}
    try:
        process = subprocess.Popen(  # noqa: S603 - the command of config.toml; no shell reads the message in it
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"{plain(command[0])}: {getattr(error, 'strerror', None) or type(error).__name__}"
    with process:
        try:
            process.communicate(json.dumps(message.fields).encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            return f"{plain(command[0])}: not done in {timeout_s:g} s"
    return f"{plain(command[0])}: exit status {process.returncode}" if process.returncode else ""


def _filled(argument: str, fields: Mapping[str, str]) -> str:
    """An argument with the facts in place of `{title}` and the like; other braces stay."""
    parts = argument.split("{")
    text = parts[0]
    for part in parts[1:]:
        name, brace, rest = part.partition("}")
        text += fields[name] + rest if brace and name in fields else "{" + part
    return text
