"""A run is a directory: where it is, how it is written, read and listed.

Never imports torch or numpy.
"""
