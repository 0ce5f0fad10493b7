"""Faults of what surrounds a run: clocks, networks, terminals and other users."""
