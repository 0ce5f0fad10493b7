"""Runs that exist already: continuing one that has ended, and adding to that of `epochtop run`.

Imported where a script does either. Imports the standard library only.
"""
