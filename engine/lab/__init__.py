"""The lab: experiments that measure where the time goes on this machine, and what would help.

An experiment is a package in :mod:`epochtop.engine.lab.experiments`, as :mod:`epochtop.engine.lab.experiment` defines it.

Never imports torch at this level, so that the screen can list and show experiments.
"""
