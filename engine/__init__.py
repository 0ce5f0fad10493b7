"""The engine: trains models, measures machines, and records both in run directories.

Never imports the screen (`epochtop.tui`), Textual or plotext. Importing this package costs nothing.
"""
