"""Uses of a trained model: predict and export.

Never imports lab or process.
"""
