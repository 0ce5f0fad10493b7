"""`python -m epochtop` is the `epochtop` command."""

from epochtop.tui.__main__ import main

if __name__ == "__main__":
    main()
