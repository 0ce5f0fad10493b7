"""What is written inside a plot next to its curves: legend and notes. Nothing here hides a curve.

Never imports a widget.
"""
