"""The experiments of the lab, run again and again next to a busy neighbor: `make lab-check`.

It asks whether verdicts agree, whether stated intervals contain the median of all runs, and whether planted truths are
found. It takes minutes and depends on the machine, so it is not part of `make test`.
"""
