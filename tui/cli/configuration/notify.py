"""`epochtop notify --test`: one message through every configured route, and whether it arrived."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from epochtop.configuration.load import Configuration, load
from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.terminal.desktop import BELL, desktop_notification
from epochtop.engine.terminal.output import write, write_sequence
from epochtop.notifications.routes import Message, send
from epochtop.tui.cli.configuration.show import report_problems


@dataclass(frozen=True)
class Notify:
    """Send notifications."""

    test: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="send one message through every configured route and report the result"),
    ] = False


def send_test(options: Notify) -> int:
    """Send a test message. Returns the exit status: 1 if a route fails, if there is none, or if the file is wrong.

    Raises Invalid without `--test`.
    """
    if not options.test:
        raise Invalid("", "nothing to send; `epochtop notify --test` sends a test message")
    configuration = load()
    report_problems(configuration)
    message = Message("finished", "epochtop", "this is a test message", run="test", host=socket.gethostname())
    results = send(message, configuration.values)
    for route, problem in results.items():
        write(f"{route}: {f'failed: {problem}' if problem else 'sent'}\n")
    in_terminal = _alert(configuration, message)
    if in_terminal:
        write(f"terminal: {in_terminal}\n")
    if not results and not in_terminal:
        write(f"no route is configured; set notifications.webhook or notifications.command in {configuration.path}\n")
        return 1
    return int(any(results.values()) or bool(configuration.problems))


def _alert(configuration: Configuration, message: Message) -> str:
    """Ring and show a notification as the app does. Returns what was written; empty without a terminal."""
    if not sys.stdout.isatty():
        return ""
    sequence = desktop_notification(message.title, message.text, configuration["notifications.desktop"], os.environ)
    bell = bool(configuration["notifications.bell"])
    write_sequence(sequence + BELL * bell)
    return " and ".join([*(["bell"] if bell else []), *(["desktop notification"] if sequence else [])])
