"""Readers of tables: CSV, Parquet and NumPy files.

Never imports torch.
"""
