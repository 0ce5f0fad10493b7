"""Datasets of Hugging Face's `datasets` package in a local folder, as rows.

Never downloads anything, and never imports torch.
"""
