"""Arrays saved by NumPy as rows and labels: tables, images and series.

Never unpickles anything, and never imports torch.
"""
