"""The loss chart: series, axes, frames and the widget.

Never imports app, screens or lab.
"""
