"""Logs of other tools as runs: what `epochtop open` shows, read in place and never changed.

Turns what `epochtop.formats` yields into events and records. Never imports torch, numpy or Textual.
"""
