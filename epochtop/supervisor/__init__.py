"""The process that `epochtop run` starts: it runs the user's command, stores its output, and records how it ended.

It lives in its own session, so that a closed terminal affects neither itself nor the command. Standard library only.
"""
