"""Datasets, from a name or a file to arrays that a model trains on.

Never imports torch.
"""
