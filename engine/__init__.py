"""The engine: trains models, measures machines and writes what happens into run directories.

Never imports Textual, plotext or anything of the screen (`epochtop.tui`). Importing this package itself costs nothing.
"""
