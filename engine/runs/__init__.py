"""Run directories: where they are, and how they are written, read and listed.

Never imports torch or numpy.
"""
