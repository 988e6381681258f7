"""``python -m seg`` is the command line."""

import sys

from seg.cli import main

sys.exit(main())
