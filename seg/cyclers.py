"""Which cycler file belongs to which input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seg.batch import result_folders
from seg.errors import UsageError
from seg.manifest import Entry


def with_cyclers(inputs: Sequence[Path], cyclers: Sequence[Path]) -> list[Entry]:
    """Give every input its cycler file.

    Parameters
    ----------
    inputs : sequence of Path
    cyclers : sequence of Path
        One file for all inputs, one file per input in their order, or one folder that holds a file of the name of
        each input.

    Returns
    -------
    list of Entry
        In the order of `inputs`.

    Raises
    ------
    UsageError
        The numbers differ, or the folder lacks a file or has several for one input.
    """
    if len(cyclers) == 1 and cyclers[0].is_dir():
        named = [_of_name(folder.name, cyclers[0]) for folder in result_folders(inputs, Path())]
        missing = [path.name for path, found in zip(inputs, named, strict=True) if not found]
        if missing:
            raise UsageError(
                f"{cyclers[0]} has no cycler file named like {', '.join(missing[:5])}{', ...' if missing[5:] else ''}; "
                f"give each the name of its input, such as {Path(missing[0]).name.split('.')[0]}.mpt."
            )
        several = next((found for found in named if len(found) > 1), None)
        if several:
            raise UsageError(
                f"{cyclers[0]} has several files of one name ({', '.join(p.name for p in several)}); keep one of them."
            )
        files = [found[0] for found in named]
    elif len(cyclers) == 1:
        files = [cyclers[0]] * len(inputs)
    elif len(cyclers) == len(inputs):
        files = list(cyclers)
    else:
        raise UsageError(
            f"--echem names {len(cyclers)} files for {len(inputs)} input(s); give one for all, one per input in the "
            "same order, or a folder with files named like the inputs."
        )
    return [Entry(path, {"echem": file}) for path, file in zip(inputs, files, strict=True)]


def _of_name(name: str, folder: Path) -> list[Path]:
    """Files of a folder that are called `name`, whatever their ending."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.stem == name)
