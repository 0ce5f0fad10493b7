"""What `epochtop run` adds to the user's Python processes: training figures without a change to the script.

Runs in environments that have none of epochtop's dependencies: standard library only, Python 3.9 or later. Never imports
torch or a logger by itself, never raises into the script, never reads a device.
"""
