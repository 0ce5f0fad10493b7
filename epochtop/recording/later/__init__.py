"""What the writer's thread does some time after the start of a run: it reads commands of viewers and completes the record.

A script does not wait for these modules: the thread imports them when it is time, or the script when it uses them. They import
the standard library only.
"""
