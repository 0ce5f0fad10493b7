"""Ways to begin besides the Run panel: the user's own script, and logs of other tools.

Imported when a key asks for it, after the first frame.
"""
