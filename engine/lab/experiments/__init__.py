"""The catalog of experiments: one folder each, with the question, the measurement and the verdict.

Only what measures may import torch, and only when it runs.
"""
