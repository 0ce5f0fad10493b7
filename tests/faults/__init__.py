"""The fault campaign: what breaks × where × when, in tables.

`make faults` tries every row. CI tries a selection, marked in each table (see :mod:`tests.faults.selection`).
"""
