"""The other machine as a user writes it, and the ssh command that reaches it. Never imports torch, numpy or Textual."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass

from epochtop.engine.protocol.spec import Invalid

SSH = "EPOCHTOP_SSH"
"""Environment variable with another ssh command, such as `ssh -p 2222`."""
PATIENCE_S = 15
"""Seconds after which ssh gives up to reach a machine."""
TOO_OLD_STATUS = 78
"""Exit status of a Python that is too old."""
BOOTSTRAP = (
    "import sys;sys.path[:]=filter(None,sys.path);"
    "sys.version_info<(3,9)and(sys.stderr.write(sys.version.split()[0]),sys.exit(78));"
    'b=sys.stdin.buffer;exec(compile(b.read(int(b.readline())),"epochtop","exec"))'
)
"""Runs the source that follows on standard input, after a line with its length. No shell changes any of its characters.
Modules in the current folder cannot take the place of those of Python; `-P` would need Python 3.11."""


@dataclass(frozen=True)
class Host:
    """A machine and a home folder on it."""

    name: str
    """What ssh is asked for: a name of its configuration, or `user@box`."""
    home: str = ""
    """The home folder of runs there; empty for the usual one."""

    def command(self, may_ask: bool) -> list[str]:
        """The command that starts the agent. `may_ask` lets ssh ask for a password on the terminal."""
        ssh = shlex.split(os.environ.get(SSH, "")) or ["ssh"]
        options = [f"ConnectTimeout={PATIENCE_S}", *([] if may_ask else ["BatchMode=yes"])]
        words = [word for option in options for word in ("-o", option)]
        return [*ssh, "-T", *words, self.name, f"exec python3 -c '{BOOTSTRAP}'"]


def parse_host(text: str) -> Host:
    """`box`, `user@box` or `user@box:/home/folder`. Raises Invalid for anything that ssh could take for an option."""
    name, separator, home = text, "", ""
    for start in (":/", ":~"):
        if start in text:
            name, separator, home = text.partition(start)
            home = separator[1:] + home
            break
    if not name or name.startswith("-") or not name.isprintable() or " " in name:
        raise Invalid(
            "host", f"{text!r} is not a machine; write --host box, --host user@box or --host user@box:/home/folder"
        )
    return Host(name, home)
