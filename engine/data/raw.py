"""A dataset as it was read, before it is split and scaled."""

from __future__ import annotations
