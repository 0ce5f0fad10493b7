"""Escape sequences by which a terminal shows a notification on the desktop, also through tmux and screen.

iTerm2 introduced OSC 9 and rxvt OSC 777. A terminal that knows both would show two, so the sequence depends on the terminal.
tmux passes sequences on if its option `allow-passthrough` is on. Never imports another engine package.
"""

from __future__ import annotations

from collections.abc import Mapping

from epochtop.engine.terminal.plain import plain_line

BELL = "\a"
MOST_CHARACTERS = 150
"""Most characters of a title or a text: screen passes on at most 768 bytes."""
_OSC_777 = ("kitty", "foot", "ghostty", "rxvt", "contour", "wezterm")
"""Terminals that show OSC 777, by the beginning of their names."""
_SILENT = ("linux", "dumb", "")
"""Values of TERM of terminals that may print an unknown sequence."""


def desktop_notification(title: str, text: str, kind: str, environment: Mapping[str, str]) -> str:
    """The sequences that show a notification; empty for none.

    `kind` is `osc9`, `osc777`, `both`, `off`, or `auto`, which chooses by the variables of the terminal in `environment`.
    Foreign text becomes plain.
    """
    kinds = _kinds(environment) if kind == "auto" else {"off": (), "both": ("osc9", "osc777")}.get(kind, (kind,))
    title, text = _short(title), _short(text)
    sequences = {
        "osc9": f"\x1b]9;{title}: {text}{BELL}",
        "osc777": f"\x1b]777;notify;{title.replace(';', ',')};{text.replace(';', ',')}{BELL}",
    }
    return "".join(_passed_through(sequences[each], environment) for each in kinds)


def _short(text: str) -> str:
    line = plain_line(text)
    return line if len(line) <= MOST_CHARACTERS else line[: MOST_CHARACTERS - 1] + "…"


def _kinds(environment: Mapping[str, str]) -> tuple[str, ...]:
    program, term = environment.get("TERM_PROGRAM", "").lower(), environment.get("TERM", "").lower()
    if program == "iterm.app" or environment.get("LC_TERMINAL") == "iTerm2":
        return ("osc9",)
    if "VTE_VERSION" in environment or program.startswith(_OSC_777):
        return ("osc777",)
    if term.removeprefix("xterm-").startswith(_OSC_777):
        return ("osc777",)
    return () if term in _SILENT else ("osc9", "osc777")


def _passed_through(sequence: str, environment: Mapping[str, str]) -> str:
    """A sequence for the terminal around tmux or screen. It ends with BEL, because ST would end the envelope."""
    if environment.get("TMUX") and (not environment.get("STY") or environment.get("TERM_PROGRAM") == "tmux"):
        doubled = sequence.replace("\x1b", "\x1b\x1b")
        return f"\x1bPtmux;{doubled}\x1b\\"
    if environment.get("STY"):
        return f"\x1bP{sequence}\x1b\\"
    return sequence
