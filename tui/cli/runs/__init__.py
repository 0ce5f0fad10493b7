"""Commands that read runs: list, open and export. They never import torch, and start no engine."""
