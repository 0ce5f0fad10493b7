"""`python -m epochtop.engine`: a standby engine on standard input and output; see :mod:`epochtop.engine.process.standby`.

`python -m epochtop.engine train` trains from the command line, also under torchrun (:mod:`epochtop.engine.process.torchrun`);
`python -m epochtop.engine rank` is started by an engine that trains with several processes (:mod:`epochtop.engine.distributed.rank`). Other
commands are asked of runs that have weights (:mod:`epochtop.engine.process.commands`).
"""

import sys


def main(arguments: list[str]) -> int:
    """Each kind of process imports only what it needs."""
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
