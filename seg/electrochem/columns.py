"""What cyclers call their columns: header names and units of text exports, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TIME_S = {"s": 1.0, "sec": 1.0, "secs": 1.0, "seconds": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0, "hr": 3600.0}
_VOLTAGE_V = {"v": 1.0, "volts": 1.0, "mv": 1e-3, "uv": 1e-6}
_CURRENT_MA = {"a": 1e3, "amps": 1e3, "ma": 1.0, "ua": 1e-3, "na": 1e-6}
_CAPACITY_MAH = {
    "ah": 1e3, "ahr": 1e3, "a.h": 1e3, "amp-hr": 1e3, "mah": 1.0, "mahr": 1.0, "ma.h": 1.0, "uah": 1e-3, "ua.h": 1e-3,
    "c": 1 / 3.6, "mc": 1 / 3600.0,
}  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """One quantity a cycler may write.

    Parameters
    ----------
    names : tuple of str
        Header names without unit, lower case and without spaces and underscores.
    units : dict of str to float
        Unit as written to the factor that brings it to the table's unit; empty where the column is not a number.
    default_unit : str or None
        Unit of a column that states none; None: such a column is not this quantity.
    """

    names: tuple[str, ...]
    units: dict[str, float]
    default_unit: str | None = None


# Order of names is order of preference. A header without unit counts only where the instrument fixes the unit
# (Gamry's T, Vf, Im; Maccor's Amps and Volts) or where text carries it (h:min:s).
QUANTITIES: dict[str, Quantity] = {
    "time": Quantity(
        ("totaltime", "testtime", "test", "elapsedtime", "runtime", "time", "t"), {**_TIME_S, "h:min:s.ms": 1.0}, "s"
    ),
    "step_time": Quantity(("steptime", "step", "relativetime"), {**_TIME_S, "h:min:s.ms": 1.0}),
    "clock": Quantity(
        ("datetime", "date", "realtime", "absolutetime", "dpttime", "dateandtime", "timestamp", "systemtime"), {}
    ),
    "voltage": Quantity(
        (
            "voltage",
            "ewe",
            "<ewe>",
            "ecell",
            "ewe-ece",
            "potential",
            "cellvoltage",
            "volts",
            "vf",
            "vol",
            "e",
            "u",
            "v",
        ),
        _VOLTAGE_V,
        "v",
    ),
    "current": Quantity(("current", "<i>", "i", "amps", "im", "cur"), _CURRENT_MA),
    "net_charge": Quantity(("(q-qo)", "q-qo"), _CAPACITY_MAH),
    "discharge_capacity": Quantity(
        ("dischargecapacity", "dchg.cap.", "dischg.cap.", "capacitancedchg", "qdischarge"), _CAPACITY_MAH
    ),
    "charge_capacity": Quantity(("chargecapacity", "chg.cap.", "capacitancechg", "qcharge"), _CAPACITY_MAH),
    "capacity": Quantity(("capacity", "amp-hr", "cap.", "q"), _CAPACITY_MAH),
    "temperature": Quantity(
        ("temperature", "celltemperature", "auxtemperature", "chambertemperature", "temp", "temp."),
        {"c": 1.0, "degc": 1.0, "°c": 1.0, "℃": 1.0, "celsius": 1.0},
    ),
    "pressure": Quantity(
        ("pressure", "stackpressure", "cellpressure"),
        {"mpa": 1.0, "kpa": 1e-3, "pa": 1e-6, "bar": 0.1, "psi": 6.894757e-3},
    ),
    "cycle": Quantity(("cycle", "cyclenumber", "cycleindex", "cycleid", "cyc#", "cyclec", "cyclep"), {}),
    "step": Quantity(("stepindex", "stepid", "step", "ns", "stepnumber"), {}),
    "state": Quantity(("state", "md", "status", "steptype", "stepname"), {}),
}

# Instruments that give a column without a unit one fixed unit.
_BARE_UNITS = {("current", "amps"): "a", ("current", "im"): "a", ("capacity", "amp-hr"): "ah"}

_WITH_UNIT = (
    re.compile(r"^(?P<name>.+?)\s*[(\[](?P<unit>[^()\[\]]*)[)\]]$"),  # Voltage(V), Current [mA]
    re.compile(r"^(?P<name>.+)/(?P<unit>[^/]+)$"),  # Ewe/V, (Q-Qo)/mA.h
    re.compile(r"^(?P<name>.+)_(?P<unit>[A-Za-z]+)$"),  # voltage_V
    re.compile(r"^(?P<name>.+), (?P<unit>[A-Za-z.]+)$"),  # Voltage, V
)


def split_header(header: str) -> list[tuple[str, str | None]]:
    """Read a column header as (name, unit), in each way it may be meant, most specific first; in lower case.

    ``"Voltage(V)"`` gives ``("voltage", "v")`` and ``("voltage(v)", None)``.
    """
    text = header.strip().strip("\"'").replace("µ", "u").replace("μ", "u").replace("¦Ì", "u")
    # The last one above: a GB 18030 mu, as Chinese-language software writes it, read as Latin-1.
    readings: list[tuple[str, str | None]] = []
    for pattern in _WITH_UNIT:
        match = pattern.match(text)
        if match:
            readings.append((_plain(match["name"]), match["unit"].strip().lower()))
    return [*readings, (_plain(text), None)]


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", "", name).lower()


def recognise(header: str) -> list[tuple[str, int, float]]:
    """Name what a column header may stand for: (quantity, rank of its name, factor to the table's unit)."""
    found: dict[str, tuple[str, int, float]] = {}
    for name, unit in split_header(header):
        for key, quantity in QUANTITIES.items():
            if name not in quantity.names or key in found:
                continue
            rank = quantity.names.index(name)
            if not quantity.units:
                if unit is None:
                    found[key] = (key, rank, 1.0)
                continue
            known = unit if unit is not None else _BARE_UNITS.get((key, name), quantity.default_unit)
            if known in quantity.units:
                found[key] = (key, rank, quantity.units[known])
    return list(found.values())


def assign_columns(headers: list[str]) -> dict[str, tuple[int, float]]:
    """Column index and factor of each quantity that a header row offers."""
    best: dict[str, tuple[int, int, float]] = {}
    for index, header in enumerate(headers):
        for key, rank, factor in recognise(header):
            if key not in best or rank < best[key][0]:
                best[key] = (rank, index, factor)
    return {key: (index, factor) for key, (_, index, factor) in best.items()}
