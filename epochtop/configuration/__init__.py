"""The user's `config.toml`: where it is; its keys, its reader, and the effective values with where each comes from.

Both the app and the code inside users' scripts read it. It imports the standard library only and works with Python 3.9 or
later. A broken file never raises: it becomes a list of problems, and defaults take the place of what cannot be used. The reader
and slow modules are imported in functions, when there is a file to read.
"""

from __future__ import annotations

import os
import sys


def path() -> str:
    """Path of the file: $EPOCHTOP_CONFIG, else `epochtop/config.toml` in the platform's folder of configurations."""
    custom = os.environ.get("EPOCHTOP_CONFIG")
    if custom:
        return os.path.abspath(os.path.expanduser(custom))
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Application Support/epochtop/config.toml")
    folder = os.environ.get("XDG_CONFIG_HOME", "").strip() or os.path.expanduser("~/.config")
    return os.path.join(folder, "epochtop", "config.toml")


def is_present() -> bool:
    """Whether anything may differ from the defaults: there is a file, or a variable with a webhook."""
    return bool(os.environ.get("EPOCHTOP_WEBHOOK")) or os.path.exists(path())


def configured_home() -> str:
    """The home folder of runs that the file names; empty if it names none."""
    if not os.path.exists(path()):
        return ""
    from epochtop.configuration.load import load

    return str(load()["home"])
