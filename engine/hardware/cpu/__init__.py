"""Identification of the processor.

Never imports torch or numpy.
"""
