"""The app: what is open, who controls it, and how the process starts and ends.

Never imports torch, numpy or scikit-learn.
"""
