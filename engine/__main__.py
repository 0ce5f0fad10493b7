"""`python -m engine`: a standby engine on standard input and output. See engine.worker."""

import sys

from engine.worker import main

if __name__ == "__main__":
    sys.exit(main())
