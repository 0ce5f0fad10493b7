"""Codes of notes and warnings: what a message is about, for programs. Nothing may depend on a message's wording.

Imports nothing. Logs of older versions have no codes, and newer versions may have others.
"""

from __future__ import annotations

EAGER_FALLBACK = "eager_fallback"
"""Steps are eager although another executor was requested, or `auto` found no faster one."""
EXECUTOR_READY = "executor_ready"
"""How long the executor took to set up."""
PHASE = "phase"
"""What an experiment is doing."""
SETTING_REJECTED = "setting_rejected"
"""A live setting keeps its value."""
RATE_LOWERED = "rate_lowered"
"""The schedule lowered the learning rate."""
LOSS_DIFFERS = "loss_differs"
"""A resumed run computed another loss than it recorded before."""
CHECKPOINT_DELAYED = "checkpoint_delayed"
"""A checkpoint waits for disk space."""
CHECKPOINT_FAILED = "checkpoint_failed"
"""A checkpoint could not be written."""
