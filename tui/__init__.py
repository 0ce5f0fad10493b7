"""The terminal app. Never imports torch, numpy or scikit-learn."""
