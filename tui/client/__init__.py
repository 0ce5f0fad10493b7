"""The viewer's side of an engine: start it, ask it, follow what it writes.

Never imports a widget.
"""
