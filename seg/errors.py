"""What can go wrong, and the exit code each kind ends the command line with."""


class SegError(Exception):
    """A failure that one sentence can explain; the command line prints it without a traceback."""

    exit_code = 1


class UsageError(SegError):
    """The command or a configuration file asks for something that does not exist."""

    exit_code = 2


class NothingMatchedError(SegError):
    """No input matched what was asked for."""

    exit_code = 4


class DataError(SegError):
    """An image, a label file or a table cannot be used as it is."""

    exit_code = 5


class AxesError(DataError):
    """A file does not say what its axes are, or not what it was asked to say."""


class CalibrationError(DataError):
    """A pixel size or a frame time is missing, contradictory or impossible."""


class LabelError(DataError):
    """Label values do not fit the schema or the image."""


class ModelError(SegError):
    """A model bundle is incomplete, damaged or does not fit the task."""

    exit_code = 6


class InterruptedRunError(SegError):
    """The run was asked to stop; what is finished is kept and the same command continues."""

    exit_code = 75
