"""Failures explained to people: exceptions, and losses that are not finite.

No logic may depend on these texts. Never imports execution, distributed or training.
"""

from __future__ import annotations

from epochtop.engine.job.failures.divergence import divergence_advice
from epochtop.engine.job.failures.exceptions import explain, failed

__all__ = ["divergence_advice", "explain", "failed"]
