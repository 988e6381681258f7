"""How modules of this package run as ``python -m training.NAME``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn

from seg.errors import SegError

logger = logging.getLogger(__name__)


def run_module(main: Callable[[], int]) -> NoReturn:
    """Run `main` and end the process: with what it returns, or with the exit code of what is wrong, said in a line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        raise SystemExit(main())
    except SegError as error:
        logger.error("%s", error)  # noqa: TRY400 - the sentence, no traceback
        raise SystemExit(error.exit_code) from None
