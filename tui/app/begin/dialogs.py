"""Asks for a command or a path, starts or opens it, and shows the run. What takes time runs in a thread."""

from __future__ import annotations

import shlex
import subprocess
from asyncio import to_thread
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import App

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.opened import folders, sources
from epochtop.engine.runs.opened.lookup import logs_at
from epochtop.tui.client.supervised import check_command, start
from epochtop.tui.forms.dialogs import Entries

if TYPE_CHECKING:
    from epochtop.tui.app.engine import NextEngine
    from epochtop.tui.client.remote.starter import RemoteStarter

STARTED: list[subprocess.Popen[bytes]] = []
"""Supervisors of commands; each ends with its command, which does not need this process."""


async def begin(app: App[int], way: str, engine: NextEngine, home: Path, show: Callable[[Path], None]) -> None:
    """Ask for a script to run (`script`) or for logs to open (`logs`), and show the run."""
    if engine.remote is not None:
        if way == "script":
            await run_script_on(engine.remote, app, engine)
        else:
            await open_logs_on(engine.remote, app)
    elif way == "script":
        await run_script(app, show)
    else:
        await open_logs(app, home, show)


async def run_script_on(starter: RemoteStarter, app: App[int], engine: NextEngine) -> None:
    """Ask for a command, and have another machine run it. Its run is shown when it exists there."""
    text = f"Command to run on {starter.machine}, in your home folder there. It continues if you close the app."
    answer = await app.push_screen_wait(Entries(text, {"command": "python3 "}, _checked_words))
    if answer is not None:
        engine.request(f"starting on {starter.machine} …")
        starter.run_command(shlex.split(answer["command"]))


async def open_logs_on(starter: RemoteStarter, app: App[int]) -> None:
    """Ask for a path on another machine, and add its logs to the list of runs there."""
    text = f"File or folder on {starter.machine} with logs of another tool. Nothing is copied there."
    answer = await app.push_screen_wait(Entries(text, {"path": ""}, _checked_name))
    if answer is None:
        return
    try:
        await to_thread(starter.open_logs, answer["path"].strip())
    except Invalid as error:
        app.notify(error.message, title="not opened", severity="error")
        return
    app.notify(f"opened on {starter.machine}; the logs appear in the list of runs")


async def run_script(app: App[int], show: Callable[[Path], None]) -> None:
    """Ask for a command, start it, and show its run."""
    text = "Command to run, as in `epochtop run`. It continues if you close the app."
    answer = await app.push_screen_wait(Entries(text, {"command": "python "}, _checked_command))
    if answer is None:
        return
    try:
        run, supervisor = await to_thread(start, shlex.split(answer["command"]))
    except Invalid as error:
        app.notify(error.message, title="not started", severity="error")
        return
    STARTED.append(supervisor)
    show(run)


def _checked_command(name: str, text: str) -> str:
    check_command(shlex.split(_checked_words(name, text))[0])
    return text


def _checked_words(_name: str, text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Invalid("", "a quote is not closed; close it or remove it") from error
    if not words:
        raise Invalid("", "name a command, such as python train.py --lr 0.1")
    return text


async def open_logs(app: App[int], home: Path, show: Callable[[Path], None]) -> None:
    """Ask for a file or a folder, add its logs to the list of runs, and show the newest one."""
    text = "File or folder with logs of another tool, as in `epochtop open`. Nothing is copied."
    answer = await app.push_screen_wait(Entries(text, {"path": ""}, _checked_path))
    if answer is None:
        return
    try:
        newest = await to_thread(_add, home, _absolute(answer["path"]))
    except (Invalid, OSError) as error:
        app.notify(str(error), title="not opened", severity="error")
        return
    show(newest)


def _absolute(text: str) -> Path:
    return folders.absolute(Path(text.strip()).expanduser())


def _checked_name(_name: str, text: str) -> str:
    if not text.strip():
        raise Invalid("", "name a file or a folder, such as lightning_logs")
    return text


def _checked_path(name: str, text: str) -> str:
    _checked_name(name, text)
    if not _absolute(text).exists():
        raise Invalid("", f"there is no file or folder {text.strip()}")
    return text


def _add(home: Path, path: Path) -> Path:
    """Add the logs at a path to the list of runs. Returns the newest one. Raises Invalid if there is none."""
    logs, _ = logs_at(path)
    folders.add(home, [path])
    return max(logs, key=lambda log: sources.summarize(log, home).created).path
