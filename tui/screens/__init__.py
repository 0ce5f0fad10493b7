"""The main screen and what opens over it.

Never imports app or cli.
"""
