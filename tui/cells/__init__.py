"""Rows of terminal cells: one vocabulary of styled text and the one widget that paints it.

Never imports another tui package but state.
"""
