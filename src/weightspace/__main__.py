"""`python -m weightspace`: the command line, for torchrun and wherever no script is on the path."""

import sys

from weightspace.cli import main

if __name__ == "__main__":
    sys.exit(main())
