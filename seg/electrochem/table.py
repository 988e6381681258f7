"""Text exports of battery cyclers and potentiostats, read into one table."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from seg.electrochem.columns import assign_columns
from seg.electrochem.neware import neware_lines
from seg.errors import DataError

logger = logging.getLogger(__name__)

COLUMNS = ("time_s", "voltage_V", "current_mA", "capacity_mAh", "cycle", "half_cycle")
# What the file may say of the surroundings: quantity and column of the table.
COVARIATES = {"temperature": "temperature_C", "pressure": "pressure_MPa"}
HALF_CYCLES = ("plating", "stripping", "rest")

# A current below this share of the largest one is rest: a constant-voltage tail ends at 1/20 or 1/50 of the current,
# the noise of an idle channel lies near 1/10000 of its range.
REST_FRACTION = 1e-3

# A header further down than this is not looked for: EC-Lab headers of long programmes have a few hundred lines.
_HEADER_WITHIN = 5000

_BINARY = {
    ".mpr": "Export it from EC-Lab as text (.mpt).",
    ".res": "Export it from MITS Pro as CSV.",
    ".xls": "Save the sheet with the records as CSV.",
    ".xlsx": "Save the sheet with the records as CSV.",
}


def read_cycler(path: Path | str, *, plating_current: Literal["negative", "positive"] = "negative") -> pd.DataFrame:
    """Read a cycler's text export.

    Plain CSV (comma, semicolon or tab; decimal point or comma), BioLogic ``.mpt``, and the record tables that Neware,
    Arbin, Gamry (``.DTA``) and Maccor write as text; Neware's own ``.nda`` and ``.ndax`` with the package NewareNDA.
    The header row is the first one that names a time and a voltage or current column; lines that are not records
    (units, footers) are left out and counted in the log.

    Parameters
    ----------
    path : Path or str
    plating_current : {"negative", "positive"}
        Sign of the current that plates metal on the observed electrode. Negative is right where that electrode is the
        working electrode (half cells, symmetric cells); positive for the anode of a full cell.

    Returns
    -------
    DataFrame
        ``time_s``, ``voltage_V``, ``current_mA`` (sign as in the file; instruments that write magnitudes get
        discharge negative), ``capacity_mAh``, ``cycle`` and ``half_cycle``, one row per record. A quantity that the
        file does not hold is NaN; ``half_cycle`` is ``""`` where there is no current. ``temperature_C`` and
        ``pressure_MPa`` where the file has such columns.

    Notes
    -----
    ``capacity_mAh`` is the net charge plated since the first record: it rises on plating and falls on stripping. It is
    taken from a column ``capacity_mAh`` as it stands; else from BioLogic's (Q-Qo); else from charge and discharge
    counters, whose resets are undone; else integrated from the current by the trapezoid rule. An unsigned counter that
    starts again at every step counts in the direction of the current. ``cycle`` is the instrument's count where the
    file has one; else the first is 1, and the next begins where the direction of the first current comes back.
    """
    path = Path(path)
    numbers, headers = _opened(path)
    if not numbers.has("current"):
        logger.warning("%s has no column of a current with its unit, so plating and stripping are not known", path.name)
    time_s, keep = _time(numbers, path)
    table = pd.DataFrame({"time_s": time_s})
    table["voltage_V"] = numbers.get("voltage")
    table["current_mA"] = _signed_current(numbers)
    canonical = next((i for i, h in enumerate(headers) if h.strip().strip('"') == "capacity_mAh"), None)
    sign = -1.0 if plating_current == "negative" else 1.0
    cycle = numbers.get("cycle")
    table["half_cycle"] = _half_cycles(table["current_mA"].to_numpy(), sign)
    counted = cycle if numbers.has("cycle") else _counted_cycles(table["half_cycle"].to_numpy())
    table["cycle"] = pd.array(np.where(np.isfinite(counted), counted, 1).astype(int), dtype="Int64")
    covariates = {column: numbers.get(name) for name, column in COVARIATES.items() if name in numbers.columns}
    table = table.assign(**covariates)
    given = numbers.column(canonical) if canonical is not None else None
    table = table[keep].reset_index(drop=True)
    numbers.keep(keep)
    table["capacity_mAh"] = given[keep] if given is not None else _net_plated(table, numbers, sign)
    logger.info("%s: %d records over %.4g s", path.name, len(table), table["time_s"].iloc[-1] - table["time_s"].iloc[0])
    return table[[*COLUMNS, *covariates]]


def records_start(path: Path) -> str | None:
    """Date and time of the zero of ``time_s``, from the first record that states both; None where none does.

    Parameters
    ----------
    path : Path
        As for `read_cycler`.
    """
    numbers, _ = _opened(path)
    time_s, keep = _time(numbers, path)
    if not numbers.has("clock"):
        return None
    text = numbers.text("clock")
    clock = pd.to_datetime(text.where(text.str.contains(":", regex=False)), errors="coerce", format="mixed")
    known = np.flatnonzero(keep & clock.notna().to_numpy())
    if not len(known):
        return None
    return str(clock.iloc[known[0]] - pd.to_timedelta(time_s[known[0]], unit="s"))


def _opened(path: Path) -> tuple[_Numbers, list[str]]:
    """The records of a file below its header, and that header."""
    if not path.is_file():
        raise DataError(f"There is no cycler file {path}.")
    if path.suffix.lower() in _BINARY:
        raise DataError(
            f"{path.name} is a binary cycler file; only text exports are read. {_BINARY[path.suffix.lower()]}"
        )
    lines = neware_lines(path) if path.suffix.lower() in (".nda", ".ndax") else _text(path).splitlines()
    headers, delimiter, first = _find_header(lines, path)
    try:
        raw = _records(lines[first + 1 :], delimiter)
    except pd.errors.ParserError as error:  # such as a quotation mark that is never closed
        raise DataError(f"{path.name} is damaged below its header ({error}); export the table again.") from error
    # Neware's layered export: cycle and step summaries stand in cells that are empty in the header of the records.
    n_lead = next(i for i, header in enumerate(headers) if header.strip())
    if n_lead and not raw.empty:
        outermost = [line.split(delimiter)[0] for line in lines[:first]]
        if any("cycle" in assign_columns([name]) for name in outermost):
            headers = [*headers, *[""] * (raw.shape[1] - len(headers)), "Cycle ID"]
            raw[len(headers) - 1] = raw[0].where(raw[0] != "").ffill().fillna("")
        raw = raw[(raw[list(range(n_lead))] == "").all(axis=1)].reset_index(drop=True)
    return _Numbers(raw, assign_columns(headers), path), headers


def _text(path: Path) -> str:
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    if b"\x00" in data[:4096]:
        raise DataError(f"{path.name} is not a text file; export the cycler's records as text or CSV.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # EC-Lab writes Windows bytes: cm², µA


def _find_header(lines: list[str], path: Path) -> tuple[list[str], str, int]:
    """Headers, delimiter and line number of the table; the row with a current wins over an earlier one without."""
    without_current: tuple[list[str], str, int] | None = None
    nearest: list[str] = []
    for number, line in enumerate(lines[:_HEADER_WITHIN]):
        for delimiter in ("\t", ";", ","):
            if delimiter not in line:
                continue
            headers = line.split(delimiter) if delimiter != "," else _split_quoted(line)
            columns = assign_columns(headers)
            if len(columns) > len(assign_columns(nearest)):
                nearest = headers
            if not ({"time", "step_time", "clock"} & set(columns)):
                continue
            if "current" in columns:
                return headers, delimiter, number
            if "voltage" in columns and without_current is None:
                without_current = (headers, delimiter, number)
    if without_current is not None:
        return without_current
    found = ", ".join(h.strip() for h in nearest if h.strip())[:160]
    raise DataError(
        f"{path.name} has no row that names a time and a voltage or current column with their units"
        + (f" (nearest: {found})." if found else ".")
        + " Export the record table as text, or write a CSV with time_s, voltage_V, current_mA."
    )


def _split_quoted(line: str) -> list[str]:
    import csv

    return next(csv.reader([line]))


def _records(lines: list[str], delimiter: str) -> pd.DataFrame:
    """Split the lines below the header into text cells; short lines are padded, none is lost."""
    lines = [line for line in lines if line.strip()]
    if not lines:
        return pd.DataFrame()
    width = max(line.count(delimiter) for line in lines) + 1
    return pd.read_csv(
        io.StringIO("\n".join(lines)), sep=delimiter, header=None, names=range(width), dtype=str, skipinitialspace=True,
        keep_default_na=False, engine="c",
    )  # fmt: skip


class _Numbers:
    """Columns of text turned into numbers, by quantity."""

    def __init__(self, raw: pd.DataFrame, columns: dict[str, tuple[int, float]], path: Path) -> None:
        self.raw, self.columns, self.path = raw, columns, path

    def has(self, key: str) -> bool:
        return key in self.columns and self.columns[key][0] in self.raw.columns

    def text(self, key: str) -> pd.Series:
        return self.raw[self.columns[key][0]].fillna("").str.strip()

    def get(self, key: str) -> np.ndarray:
        """Values in the table's unit; NaN throughout where the file has no such column."""
        if not self.has(key):
            return np.full(len(self.raw), np.nan)
        index, factor = self.columns[key]
        values = self.column(index)
        return values * factor

    def column(self, index: int) -> np.ndarray:
        text = self.raw[index].fillna("").str.strip()
        commas = text.str.fullmatch(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
        if commas.any() and not text.str.contains(".", regex=False).any():  # decimal comma
            text = text.str.replace(",", ".", regex=False)
        else:  # thousands separators
            text = text.str.replace(",", "", regex=False)
        return pd.to_numeric(text, errors="coerce").to_numpy(float)

    def keep(self, rows: np.ndarray) -> None:
        self.raw = self.raw[rows].reset_index(drop=True)


def _durations(text: pd.Series) -> np.ndarray:
    """Seconds of ``h:min:s``, ``1-02:03:04`` or ``0d 00:00:01.5``; NaN for anything else."""
    parts = text.str.replace("d ", "-", regex=False).str.extract(r"^(?:(\d+)\s*-\s*)?(\d+):(\d+):(\d+(?:[.,]\d+)?)$")
    parts[3] = parts[3].str.replace(",", ".", regex=False)
    days, hours, minutes, seconds = (pd.to_numeric(parts[i]).to_numpy(float) for i in range(4))
    return np.nan_to_num(days) * 86400 + hours * 3600 + minutes * 60 + seconds


def _seconds(numbers: _Numbers, key: str) -> np.ndarray:
    values = numbers.get(key)
    text = numbers.text(key)
    if not text.str.contains(":", regex=False).any():
        return values
    seconds = _durations(text)
    return seconds if np.isfinite(seconds).any() else _since_first(text)  # EC-Lab may write dates under time/s


def _since_first(text: pd.Series) -> np.ndarray:
    """Seconds since the first readable date of a column of dates."""
    clock = pd.to_datetime(text, errors="coerce", format="mixed")
    return (clock - clock.min()).dt.total_seconds().to_numpy(float)


def _time(numbers: _Numbers, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Time of each row in s and which rows are records; a step time that starts again is carried on."""
    candidates = [key for key in ("time", "step_time") if numbers.has(key)]
    time_s = np.full(len(numbers.raw), np.nan)
    restarts = False
    for key in candidates:
        time_s = _seconds(numbers, key)
        kept = time_s[np.isfinite(time_s)]
        restarts = bool((np.diff(kept) < 0).any())
        if kept.size:
            break
    if numbers.has("clock") and (restarts or not np.isfinite(time_s).any()):
        clock_s = _since_first(numbers.text("clock"))
        if np.isfinite(clock_s).sum() >= max(1, np.isfinite(time_s).sum()):
            time_s = clock_s
            restarts = bool((np.diff(time_s[np.isfinite(time_s)]) < 0).any())
    keep = np.isfinite(time_s)
    n_other = int((~keep).sum())
    if keep.sum() < 2:
        raise DataError(f"{path.name} holds {int(keep.sum())} record(s) with a readable time; expected at least two.")
    if n_other > keep.sum():
        raise DataError(f"{path.name}: the time of {n_other} of {len(keep)} lines is not readable; check the export.")
    if n_other:
        logger.info("%s: %d line(s) without a time left out (units, notes)", path.name, n_other)
    if restarts:
        step = numbers.get("step") if numbers.has("step") else None
        back = np.flatnonzero(np.diff(time_s[keep]) < 0)
        if step is None or (step[keep][back + 1] == step[keep][back]).any():
            raise DataError(
                f"{path.name}: time goes backwards after record {int(back[0]) + 1}; "
                "sort the records, or export the total time instead of the step time."
            )
        logger.warning("%s gives time within steps only; steps are joined without the gaps between them", path.name)
        time_s[keep] = _undo_resets(time_s[keep])
    return time_s, keep


def _undo_resets(counter: np.ndarray) -> np.ndarray:
    """Carry on a counter that starts again at zero now and then; NaN counts as no change."""
    filled = pd.Series(counter).ffill().fillna(0.0).to_numpy(float)
    steps = np.diff(filled, prepend=filled[:1])
    steps = np.where(steps < 0, filled, steps)
    return filled[0] + np.cumsum(steps)


def _signed_current(numbers: _Numbers) -> np.ndarray:
    """Give the current its sign from the state column where the instrument writes magnitudes (discharge negative)."""
    current = numbers.get("current")
    if not numbers.has("state") or np.nanmin(current, initial=0.0) < 0:
        return current
    state = numbers.text("state").str.lower()
    discharge = state.eq("d") | state.str.contains("dch|disch", regex=True)
    return np.where(discharge, -current, current)


def _half_cycles(current_mA: np.ndarray, plating_sign: float) -> np.ndarray:
    largest = np.nanmax(np.abs(current_mA), initial=0.0)
    limit = REST_FRACTION * largest
    signed = current_mA * plating_sign
    return np.select(
        [~np.isfinite(current_mA), signed > limit, signed < -limit], ["", "plating", "stripping"], default="rest"
    ).astype(object)


def _counted_cycles(half_cycles: np.ndarray) -> np.ndarray:
    """Number of the cycle of each record, from 1 on: a new one begins where the first direction comes back."""
    moving = np.flatnonzero(np.isin(half_cycles, HALF_CYCLES[:2]))
    kinds, begins = half_cycles[moving], np.zeros(len(half_cycles), int)
    back = np.flatnonzero((kinds[1:] == kinds[:1]) & (kinds[:-1] != kinds[:1])) + 1
    begins[moving[back]] = 1
    return 1 + np.cumsum(begins)


def _net_plated(table: pd.DataFrame, numbers: _Numbers, plating_sign: float) -> np.ndarray:
    """Net plated charge in mAh since the first record; see `read_cycler`."""
    if numbers.has("net_charge"):
        charge = numbers.get("net_charge")
        return plating_sign * (charge - charge[np.isfinite(charge)][:1].sum())
    if numbers.has("charge_capacity") and numbers.has("discharge_capacity"):
        charge = _undo_resets(np.abs(numbers.get("charge_capacity")))
        discharge = _undo_resets(np.abs(numbers.get("discharge_capacity")))
        net = plating_sign * (charge - discharge)
        return net - net[0]
    current = table["current_mA"].to_numpy()
    if not np.isfinite(current).any():
        return np.full(len(table), np.nan)
    if numbers.has("capacity"):
        counter = np.abs(numbers.get("capacity"))
        steps = np.diff(_undo_resets(counter), prepend=np.nan_to_num(counter[:1]))
        return np.cumsum(steps * plating_sign * np.sign(np.nan_to_num(current)))
    hours = table["time_s"].to_numpy() / 3600.0
    filled = np.nan_to_num(current)
    steps = 0.5 * (filled[1:] + filled[:-1]) * np.diff(hours)
    return plating_sign * np.concatenate([[0.0], np.cumsum(steps)])
