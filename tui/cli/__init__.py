"""Commands: one verb per file.

The topmost layer: nothing imports it but `tui.__main__`.
"""
