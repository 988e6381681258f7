"""Neware's binary files, read by the package NewareNDA where it is installed."""

from __future__ import annotations

from pathlib import Path

from seg.errors import DataError


def neware_lines(path: Path) -> list[str]:
    """Give the records of an ``.nda`` or ``.ndax`` file as lines of a CSV export."""
    try:
        import NewareNDA
    except ImportError as error:
        raise DataError(
            f"{path.name} is a binary Neware file; reading it needs NewareNDA: pip install operandoseg[echem]. "
            "Or export it from the Neware software as CSV."
        ) from error
    try:
        records = NewareNDA.read(str(path), log_level="ERROR")
    except Exception as error:  # it raises whatever its parsing runs into
        raise DataError(f"{path.name} cannot be read as a Neware file ({error}); export it as CSV.") from error
    # The time of its records is that of their step; its timestamps carry on over steps.
    records = records.rename(columns={"Time": "Step_Time(s)", "Voltage": "Voltage(V)", "Timestamp": "Date_Time"})
    return str(records.to_csv(index=False)).splitlines()
