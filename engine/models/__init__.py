"""The built-in networks and their description.

Never imports data or tasks.
"""
