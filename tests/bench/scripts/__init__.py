"""Figures of scripts that epochtop watches."""
