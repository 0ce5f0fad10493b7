"""Measuring devices shared by the experiments. They import torch; nothing the screen imports may import them."""
