"""Helpers for tests of processes: forks that share imports, and memory that a call allocates."""
