"""The question whether another user's code may be executed, in the app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from textual.app import App

from epochtop.engine.protocol.spec import Invalid
from epochtop.engine.runs.ownership import check_code, code_owner


def with_trust(app: App[int], run: Path, task: str, action: Callable[[str], object]) -> None:
    """Call `action` with the owner of `run` whose `task` may be executed; empty if that is this user, or without a task.

    Asks first if the run belongs to another user. Explains if other users can write to this user's run.
    """
    owner = code_owner(run, task)
    try:
        check_code(run, task, owner)
    except Invalid as error:
        app.notify(error.message, title="code not executed", severity="error", markup=False)
        return
    if owner:
        app.run_worker(_ask(app, run, task, owner, action))
    else:
        action("")


async def _ask(app: App[int], run: Path, task: str, owner: str, action: Callable[[str], object]) -> None:
    from epochtop.tui.forms.dialogs import Question

    text = f"{run.name} belongs to {owner}. Its custom task {task} would be executed as you. Do you trust {owner}?"
    if await app.push_screen_wait(Question(text, (("cancel", "Cancel"), ("trust", "Execute it")))) == "trust":
        action(owner)
