"""Tests of `epochtop.formats`. Logs are written by the small writers in `writers.py`, or by the real libraries if installed."""
