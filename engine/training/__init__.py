"""The training loop and what it leaves behind: events, checkpoints, history.

Never imports lab, inference or process.
"""
