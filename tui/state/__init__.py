"""Folds of events into what a viewer knows. No widgets, no I/O.

Never imports another tui package.
"""
