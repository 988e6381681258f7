"""``python -m training``: the same as ``operandoseg-train``."""

import sys

from training.cli import main

sys.exit(main())
