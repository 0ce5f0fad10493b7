"""Instruments that several experiments measure with. They import torch; nothing that the screen imports may import them."""
