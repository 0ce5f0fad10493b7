"""Every key of `config.toml`, declared once: type, bounds, default, environment variable, description.

The reader, `epochtop config` and the table in docs/notifications.md follow from it. Imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EVENTS = ("finished", "stopped", "failed", "diverged", "stalled")
"""What a notification can be about."""
FORMATS = ("json", "ntfy", "slack")
"""What a webhook receives."""
DESKTOP = ("auto", "osc9", "osc777", "both", "off")
"""Escape sequences by which a terminal shows a notification."""


class Key:
    """One key. `name` has the table in front: `notifications.webhook`."""

    def __init__(
        self,
        name: str,
        default: Any,
        description: str,
        *,
        choices: tuple[str, ...] = (),
        low: float | None = None,
        high: float | None = None,
        is_url: bool = False,
        variable: str = "",
        is_secret: bool = False,
    ) -> None:
        """The type of `default` is the type of the value: text, number, switch, or list of texts.

        `choices` are the only texts. `low` and `high` are bounds. `variable` is the environment variable that overrides
        the file. `epochtop config` hides the value of a secret.
        """
        self.name, self.default, self.description = name, default, description
        self.choices, self.low, self.high, self.is_url = choices, low, high, is_url
        self.variable, self.is_secret = variable, is_secret

    @property
    def expected(self) -> str:
        """What the value must be, in words."""
        words = ", ".join(f'"{choice}"' for choice in self.choices)
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, float):
            return f"a number from {self.low:g} to {self.high:g}"
        if isinstance(self.default, tuple):
            return f"a list with any of {words}" if words else 'a list of texts, such as ["first", "second"]'
        if self.is_url:
            return 'a URL, such as "https://ntfy.sh/my-topic"'
        return f"one of {words}" if words else "a text in quotes"

    def accept(self, value: object) -> Any:
        """The value, checked; numbers become floats and lists tuples. Raises ValueError if it is not as expected."""
        if isinstance(self.default, bool):
            if isinstance(value, bool):
                return value
        elif isinstance(self.default, float):
            if type(value) in (int, float) and self.low <= value <= self.high:  # type: ignore[operator]
                return float(value)  # type: ignore[arg-type]
        elif isinstance(self.default, tuple):
            if isinstance(value, (list, tuple)) and all(map(self._is_text, value)):
                return tuple(value)
        elif self._is_text(value):
            return value
        raise ValueError(self.expected)

    def _is_text(self, value: object) -> bool:
        """Whether a value is a text that is allowed here."""
        if not isinstance(value, str) or (self.choices and value not in self.choices):
            return False
        return not (self.is_url and value) or value.partition("://")[0].lower() in ("http", "https")


DAY_S = 86_400.0

KEYS = (
    Key("theme", "", "color theme of the app; empty for the default", variable="TEXTUAL_THEME"),
    Key("refresh_s", 0.35, "seconds between two pictures of the chart", low=0.1, high=10.0),
    Key("home", "", "home folder of runs; empty for the default", variable="EPOCHTOP_HOME"),
    Key("folders", (), "files and folders with logs of other tools that are always in the run list"),
    Key(
        "notifications.events",
        ("finished", "failed", "diverged", "stalled"),
        "what to report",
        choices=EVENTS,
    ),
    Key(
        "notifications.webhook",
        "",
        "URL that receives a POST request per message",
        is_url=True,
        variable="EPOCHTOP_WEBHOOK",
        is_secret=True,
    ),
    Key("notifications.webhook_format", "json", "what the webhook receives", choices=FORMATS),
    Key(
        "notifications.webhook_token",
        "",
        "access token, sent as `Authorization: Bearer`",
        variable="EPOCHTOP_WEBHOOK_TOKEN",
        is_secret=True,
    ),
    Key("notifications.command", (), "program and arguments to start per message"),
    Key("notifications.timeout_s", 10.0, "seconds after which a route has failed", low=0.1, high=300.0),
    Key(
        "notifications.wait_s",
        0.0,
        "seconds that the end of a script or an engine waits for its message to be sent",
        low=0.0,
        high=300.0,
    ),
    Key(
        "notifications.shortest_run_s",
        0.0,
        "a run that finishes or stops earlier sends no message",
        low=0.0,
        high=DAY_S,
    ),
    Key("notifications.bell", True, "ring the terminal's bell where the app is open"),
    Key("notifications.desktop", "auto", "desktop notification where the app is open", choices=DESKTOP),
    Key(
        "notifications.stall_factor",
        10.0,
        "a run stalls after this many times its usual time between steps",
        low=2.0,
        high=10_000.0,
    ),
    Key("notifications.stall_s", 300.0, "and after at least this many seconds", low=1.0, high=DAY_S),
)
"""All keys, in the order of the documentation."""
