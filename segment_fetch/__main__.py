"""`python -m segment_fetch`: the command line."""

import sys

from segment_fetch.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
