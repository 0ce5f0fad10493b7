"""The user's own model and data: loading the file, and errors in the user's own terms.

Never imports the training loop.
"""
