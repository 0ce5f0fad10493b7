"""Downloaded datasets and published files, and the cache that stores them.

Never imports torch.
"""
