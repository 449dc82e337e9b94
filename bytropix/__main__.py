"""Run the command line as `python -m bytropix`."""

import sys

from bytropix.jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
