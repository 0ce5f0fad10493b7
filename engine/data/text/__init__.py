"""Texts: one long text as windows of characters, or a table of texts with labels as rows of words.

Never imports torch.
"""
