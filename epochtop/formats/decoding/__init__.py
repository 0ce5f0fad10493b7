"""Encodings that several formats share: growing files, CRC-32C, protobuf fields, YAML, read-only SQLite.

Imports the standard library only and knows nothing about runs or series.
"""
