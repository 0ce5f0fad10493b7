"""Readers of logs that other tools wrote, one module per format, and the search for logs in a tree.

Each format module has `recognize(path, head)`, which decides from the content, and a follower (:class:`records.Follower`),
which yields plain records. Imports the standard library only and runs on Python 3.9, so that it can also read logs on a
machine without our dependencies. Never imports the engine, the screen, msgspec or numpy, and never writes a file.
"""
