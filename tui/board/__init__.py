"""The board: the chart region with one large chart, or with a grid of small ones for all series of a run. It sits above
the chart and below the screens, and never imports either a screen or the app.
"""
