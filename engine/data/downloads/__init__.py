"""Datasets from the network or from published files, and the cache that keeps them.

Never imports torch.
"""
