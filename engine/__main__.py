"""`python -m engine`: a standby engine on standard input and output; see :mod:`engine.worker`.

`python -m engine train` trains from the command line, also under torchrun (:mod:`engine.torchrun`);
`python -m engine rank` is started by an engine that trains with several processes (:mod:`engine.follower`). Other
commands are asked of runs that have weights (:mod:`engine.command`).
"""

import sys


def main(arguments: list[str]) -> int:
    """Each kind of process imports only what it needs."""
    match arguments:
        case ["rank", *rest]:
            from engine import follower

            return follower.main(rest)
        case ["train", *rest]:
            from engine import torchrun

            return torchrun.main(rest)
        case [_, *_]:
            from engine import command

            return command.main(arguments)
        case _:
            from engine import worker

            return worker.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
