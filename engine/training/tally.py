"""What the loop keeps count of: training time, losses so far, the best weights, patience. Host values only."""

from __future__ import annotations
