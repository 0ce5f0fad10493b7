"""Where the time goes on this machine, and what would help: one file an experiment, one contract (:mod:`epochtop.engine.lab.experiment`)."""
