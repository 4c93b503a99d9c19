"""`python -m segment_fetch.integrations.singer`."""

import sys

from segment_fetch.integrations.singer.app import main

if __name__ == "__main__":
    sys.exit(main())
