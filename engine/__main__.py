"""`python -m epochtop.engine`: every way to start an engine process.

Without arguments it is a standby engine on standard input and output (:mod:`epochtop.engine.process.standby`).
`train` trains from the command line, also under torchrun (:mod:`epochtop.engine.process.torchrun`). `rank` is a process of
a run with several processes, started by its first one (:mod:`epochtop.engine.distributed.rank`). Every other command works
on a trained run (:mod:`epochtop.engine.process.commands`). Each process imports only what it needs.
"""

import sys

from epochtop.engine.terminal.output import plain_tracebacks


def main(arguments: list[str]) -> int:
    """Run the engine that `arguments` ask for. Returns the exit status."""
    plain_tracebacks()
    match arguments:
        case ["rank", *rest]:
            from epochtop.engine.distributed import rank

            return rank.main(rest)
        case ["train", *rest]:
            from epochtop.engine.process import torchrun

            return torchrun.main(rest)
        case [_, *_]:
            from epochtop.engine.process import commands

            return commands.main(arguments)
        case _:
            from epochtop.engine.process import standby

            return standby.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
