"""`python -m segment_fetch.singer`."""

import sys

from segment_fetch.singer.app import main

if __name__ == "__main__":
    sys.exit(main())
