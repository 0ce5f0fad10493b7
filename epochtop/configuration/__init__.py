"""The user's `config.toml`: its keys, its reader, and the effective values with where each comes from.

Both the app and the code inside users' scripts read it. It imports the standard library only and works with Python 3.9 or
later. A broken file never raises: it becomes a list of problems, and defaults take the place of what cannot be used. Slow
modules are imported in functions, when there is a file to read.
"""
