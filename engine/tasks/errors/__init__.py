"""Errors of a custom task, in the user's terms: which line, which row, and what would be right.

Never imports the job, the loop or the screen.
"""
