"""The training loop and what it records: events, checkpoints, history.

Never imports lab, inference or process.
"""
