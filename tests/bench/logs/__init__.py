"""Figures about logs that are read and written."""
