"""Charts of experiments as rows of cells.

Never imports a widget.
"""
