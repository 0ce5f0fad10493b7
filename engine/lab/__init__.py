"""Where the time goes on this machine, and what would help: one file an experiment, one contract (:mod:`epochtop.engine.lab.experiment`).

Never imports torch at this level, so that the screen can list and show experiments.
"""
