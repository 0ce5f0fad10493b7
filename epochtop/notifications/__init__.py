"""Notifications about a run, sent by the process that records it: end, failure, divergence, stall.

Used by scripts and by the engine. It imports the standard library only and works with Python 3.9 or later; what a script
loads while it is configured imports built-in modules only. A detached child process talks to the network, so that neither
a webhook that hangs nor the end of the script waits for the other. Never imports recording, engine or screen.
"""
