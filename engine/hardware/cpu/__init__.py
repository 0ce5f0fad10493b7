"""Which processor this is.

Never imports torch or numpy.
"""
