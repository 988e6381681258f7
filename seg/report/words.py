"""Numbers, units, flags and methods in the words of a paper."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

FLAG_WORDS = {
    "uncalibrated": "The pixel size (or the frame time) is unknown, so the value is in pixels (or per frame).",
    "few-pixels": "The structure spans too few pixels to be measured well.",
    "below-detection-limit": "The structure is smaller than what can be told from noise.",
    "touches-border": "The structure is cut by the edge of the image.",
    "low-confidence": "Little to go by: the model was unsure of this frame, objects are few or their outline rough.",
    "no-credible-baseline": "No substrate line could be found that the contact angle could be measured against.",
    "faceted-contact": "The deposit is faceted where it meets the substrate, so no single angle describes it.",
    "overlapping": "Structures lie over each other and could not be told apart.",
    "no-current": "The value needs the current, which was not given.",
    "regime-not-reached": "The experiment did not reach the regime that the value describes.",
    "single-frame": "The value needs more than one frame.",
    "artifact-frame": "More than half of the frame is an artefact (bubble, glare, text).",
    "ambiguous": "The data fit more than one reading about equally well.",
    "extrapolated": "The value lies outside the range that was measured.",
}

VIEW_WORDS = {"plan": "plan view", "profile": "side view", "section": "cross-section", "volume": "three dimensions"}

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def metric_title(name: str) -> str:
    """Write a metric's name as words: ``"sei_thickness_mean"`` becomes ``"SEI thickness mean"``."""
    words = name.replace("_", " ").replace("sei ", "SEI ")
    words = re.sub(r"roughness s([aq])\b", r"roughness S\1", words)  # as ISO 25178 writes them
    return words[:1].upper() + words[1:]


def class_text(name: str) -> str:
    """Write a class, or several joined by ``+`` or ``;``, as words."""
    return re.sub(r"\bsei\b", "SEI", name.replace("_", " ")).replace("+", " + ").replace(";", " + ")


def side_text(side: str) -> str:
    """Write a side, or what else tells series of one metric apart, with its unit as printed."""
    return re.sub(r"\bum\b", "µm", side)


def flag_list(flags: str) -> list[str]:
    """Split one cell of the flags column."""
    return [flag for flag in flags.split(";") if flag]


def flag_words(flag: str) -> str:
    """Say what a flag means."""
    return FLAG_WORDS.get(flag, "A reason for doubt that this version of the report does not know.")


# --- units ----------------------------------------------------------------------------------------------------------


def in_length_unit(unit: str, length_unit: str) -> tuple[float, str]:
    """Factor and unit that bring a number from µm to the length unit of the modality."""
    if length_unit != "nm":
        return 1.0, unit
    factor = 1.0
    parts = unit.split("/")
    for i, part in enumerate(parts):
        match = re.fullmatch(r"um([23]?)", part)
        if match:
            factor *= 1000.0 ** (int(match[1] or 1) * (1 if i == 0 else -1))
            parts[i] = f"nm{match[1]}"
    return factor, "/".join(parts)


def unit_text(unit: str) -> str:
    """Write a unit as printed: ``"um2/s"`` becomes ``"µm²/s"``, ``"1/cm2"`` ``"cm⁻²"``, ``"1"`` nothing."""
    if unit in ("", "1", "nan"):
        return ""
    if unit == "deg":
        return "°"
    parts = unit.replace("um", "µm").split("/")
    if parts[0] == "1":
        return " ".join(_power(part, negative=True) for part in parts[1:])
    return "/".join(_power(part) for part in parts)


def power_text(power: int) -> str:
    """Write a power of ten as printed; nothing for 0."""
    return f"10{str(power).translate(_SUPERSCRIPT)}" if power else ""


def _power(part: str, *, negative: bool = False) -> str:
    match = re.fullmatch(r"(.*?)(\d*)", part)
    if match is None:
        return part
    exponent = f"-{match[2] or 1}" if negative else match[2]
    return match[1] + exponent.translate(_SUPERSCRIPT)


# --- numbers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """A value with its interval, rounded together; ``str()`` gives it as one text.

    Parameters
    ----------
    value : str
        ``"not reported"`` for NaN.
    interval : str
        ``"[low, high]"`` or nothing.
    power : str
        ``"×10⁵"`` where a power of ten was taken out of value and interval.
    unit : str
        As printed.
    """

    value: str
    interval: str = ""
    power: str = ""
    unit: str = ""

    @property
    def reported(self) -> bool:
        """Whether there is a number."""
        return self.value != NOT_REPORTED

    @property
    def bare(self) -> str:
        """Value and power of ten without interval and unit."""
        return self.value + ("\u00a0" + self.power if self.power else "")

    @property
    def tail(self) -> str:
        """Power of ten and unit, with the space that sets them off."""
        if self.unit == "°" and not self.power:
            return self.unit
        return "".join("\u00a0" + part for part in (self.power, self.unit) if part)

    def __str__(self) -> str:
        return self.value + (f" {self.interval}" if self.interval else "") + self.tail


NOT_REPORTED = "not reported"


def number(value: float, low: float = math.nan, high: float = math.nan, unit: str = "") -> Number:
    """Round a value as its 95 % interval deserves: two digits of the half width, else three digits of the value.

    Powers of ten are taken out below 0.001 and from 100 000 on (counts: from a million), the same for value and
    interval. Counts stay whole. `unit` is that of the table.
    """
    if not math.isfinite(value):
        return Number(NOT_REPORTED)
    bounded = math.isfinite(low) and math.isfinite(high)
    whole_bounds = bounded and (high - low > 1 or (float(low).is_integer() and float(high).is_integer()))
    is_count = unit == "1" and float(value).is_integer() and (not bounded or whole_bounds)
    largest = max(abs(value), abs(low), abs(high)) if bounded else abs(value)
    exponent = math.floor(math.log10(largest)) if largest > 0 else 0
    power = exponent if exponent < -3 or exponent >= (6 if is_count else 5) else 0
    scale = 10.0**-power
    half = (high - low) / 2 * scale if bounded else 0.0
    if half > 0:
        decimals = 1 - math.floor(math.log10(half))
    elif is_count:
        decimals = 0
    else:
        decimals = 2 - math.floor(math.log10(abs(value) * scale)) if value else 0

    def text(x: float, digits: int) -> str:
        shown = f"{round(x * scale, digits) + 0.0:,.{max(digits, 0)}f}"  # + 0.0: no minus before a rounded zero
        if not bounded and "." in shown:
            shown = shown.rstrip("0").rstrip(".")
        return shown.replace(",", "\u2009").replace("-", "−")

    decimals = min(decimals, 6)
    whole = is_count and power == 0
    interval = f"[{text(low, decimals)}, {text(high, decimals)}]" if bounded else ""
    ten = "×" + power_text(power) if power else ""
    return Number(text(value, 0 if whole else decimals), interval, ten, unit_text(unit))


def plain(value: float, unit: str = "") -> str:
    """Round and write a number without interval."""
    return str(number(value, unit=unit))


def duration(seconds: float) -> str:
    """Write a time span in the unit a reader expects."""
    scale, unit = time_unit(seconds)
    return f"{seconds / scale:.3g}\u00a0{unit}"


def time_unit(span_s: float) -> tuple[float, str]:
    """Seconds per unit and name of the unit for a time axis of this length."""
    if span_s < 1e-1:
        return 1e-3, "ms"
    if span_s < 180:
        return 1.0, "s"
    if span_s < 2 * 3600:
        return 60.0, "min"
    return 3600.0, "h"


def count(n: int, thing: str) -> str:
    """``count(1, "frame")`` is ``"1 frame"``, ``count(3, "frame")`` ``"3 frames"``."""
    return f"{n:,}".replace(",", "\u2009") + f"\u00a0{thing}" + ("" if n == 1 else "s")


def joined(items: list[str], last: str = "and") -> str:
    """Join words: ``"a, b and c"``."""
    return ", ".join(items[:-1]) + f" {last} " + items[-1] if len(items) > 1 else "".join(items)


def option_words(options: dict[str, Any]) -> str:
    """Options of a metric group as text."""
    shown = []
    for key, value in options.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        shown.append(f"{key.replace('_', ' ')}: {text}")
    return "; ".join(shown)
