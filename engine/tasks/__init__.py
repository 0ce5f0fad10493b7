"""Custom tasks: loading the user's file, and errors that name the user's lines.

Never imports the training loop.
"""
