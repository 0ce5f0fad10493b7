"""A training step as a generated C program.

Never imports training.
"""
