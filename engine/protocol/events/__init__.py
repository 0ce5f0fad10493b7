"""Events of a run: what happened, one line of JSON per event in events.jsonl.

Each line has the class name of the event under `type`. Imports msgspec and the standard library only, so that the screen,
the engine and a user's script can all read a run.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from epochtop.engine.protocol.events.analysis import Analyzed as Analyzed
from epochtop.engine.protocol.events.analysis import DeviceRead as DeviceRead
from epochtop.engine.protocol.events.analysis import OperatorCost as OperatorCost
from epochtop.engine.protocol.events.codes import ANALYSIS_FAILED as ANALYSIS_FAILED
from epochtop.engine.protocol.events.codes import CHECKPOINT_DAMAGED as CHECKPOINT_DAMAGED
from epochtop.engine.protocol.events.codes import CHECKPOINT_DELAYED as CHECKPOINT_DELAYED
from epochtop.engine.protocol.events.codes import CHECKPOINT_FAILED as CHECKPOINT_FAILED
from epochtop.engine.protocol.events.codes import COMMAND_IGNORED as COMMAND_IGNORED
from epochtop.engine.protocol.events.codes import DISK_SPACE as DISK_SPACE
from epochtop.engine.protocol.events.codes import EAGER_FALLBACK as EAGER_FALLBACK
from epochtop.engine.protocol.events.codes import EVALUATION_CUT as EVALUATION_CUT
from epochtop.engine.protocol.events.codes import EXECUTOR_READY as EXECUTOR_READY
from epochtop.engine.protocol.events.codes import LOSS_DIFFERS as LOSS_DIFFERS
from epochtop.engine.protocol.events.codes import NOTIFICATION_FAILED as NOTIFICATION_FAILED
from epochtop.engine.protocol.events.codes import PHASE as PHASE
from epochtop.engine.protocol.events.codes import RANK_HANGS as RANK_HANGS
from epochtop.engine.protocol.events.codes import RATE_LOWERED as RATE_LOWERED
from epochtop.engine.protocol.events.codes import SETTING_REJECTED as SETTING_REJECTED
from epochtop.engine.protocol.events.codes import TASK_CHANGED as TASK_CHANGED
from epochtop.engine.protocol.events.codes import VALUE_IGNORED as VALUE_IGNORED
from epochtop.engine.protocol.events.control import Changed as Changed
from epochtop.engine.protocol.events.control import Noted as Noted
from epochtop.engine.protocol.events.control import Paused as Paused
from epochtop.engine.protocol.events.control import Resumed as Resumed
from epochtop.engine.protocol.events.control import Warned as Warned
from epochtop.engine.protocol.events.endings import Failed as Failed
from epochtop.engine.protocol.events.endings import Finished as Finished
from epochtop.engine.protocol.events.endings import Outcome as Outcome
from epochtop.engine.protocol.events.endings import Suggestion as Suggestion
from epochtop.engine.protocol.events.event import Event as Event
from epochtop.engine.protocol.events.event import is_unix_time as is_unix_time
from epochtop.engine.protocol.events.lab import Concluded as Concluded
from epochtop.engine.protocol.events.lab import Measured as Measured
from epochtop.engine.protocol.events.lab import Prepared as Prepared
from epochtop.engine.protocol.events.scripts import Configured as Configured
from epochtop.engine.protocol.events.scripts import ScriptEnded as ScriptEnded
from epochtop.engine.protocol.events.scripts import ScriptStarted as ScriptStarted
from epochtop.engine.protocol.events.scripts import SettingDeclared as SettingDeclared
from epochtop.engine.protocol.events.scripts import Summarized as Summarized
from epochtop.engine.protocol.events.series import Logged as Logged
from epochtop.engine.protocol.events.series import SeriesSummary as SeriesSummary
from epochtop.engine.protocol.events.training import Continued as Continued
from epochtop.engine.protocol.events.training import Evaluated as Evaluated
from epochtop.engine.protocol.events.training import Losses as Losses
from epochtop.engine.protocol.events.training import Mapped as Mapped
from epochtop.engine.protocol.events.training import Saved as Saved
from epochtop.engine.protocol.events.training import Started as Started
from epochtop.engine.protocol.events.training import Switched as Switched
from epochtop.engine.protocol.events.training import Telemetry as Telemetry

AnyEvent = (
    Started
    | Losses
    | Logged
    | Evaluated
    | Mapped
    | Saved
    | Paused
    | Resumed
    | Continued
    | Switched
    | Changed
    | Noted
    | Warned
    | Prepared
    | Measured
    | Concluded
    | Telemetry
    | ScriptStarted
    | Configured
    | Summarized
    | SettingDeclared
    | ScriptEnded
    | Analyzed
    | Finished
    | Failed
)
"""Every event."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors of decoding a line: not valid JSON or of another type, not UTF-8, nested too deeply."""

encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""Encode any of these types as one line of JSON, without the newline."""
decode_event: Callable[[bytes], AnyEvent] = msgspec.json.Decoder(AnyEvent).decode
"""Decode one line. Raises the errors in UNREADABLE."""
