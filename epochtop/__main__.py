"""`python -m epochtop` runs the `epochtop` command."""

from epochtop.tui.__main__ import main

if __name__ == "__main__":
    main()
