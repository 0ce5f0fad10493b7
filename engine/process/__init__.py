"""Entry points of every engine process: standby, run, experiment, rank, command.

Nothing imports this package but `engine.__main__`.
"""
