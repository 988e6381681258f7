"""Scale bars and time stamps as instruments burn them into frames; drawn from a 5 x 7 font, the same everywhere."""

from __future__ import annotations

import numpy as np

_GLYPHS = {
    "0": "01110 10001 10011 10101 11001 10001 01110", "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111", "3": "01110 10001 00001 00110 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010", "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110", "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110", "9": "01110 10001 10001 01111 00001 00010 01100",
    ".": "00000 00000 00000 00000 00000 01100 01100", " ": "00000 00000 00000 00000 00000 00000 00000",
    "m": "00000 00000 11010 10101 10101 10101 10101", "i": "00100 00000 01100 00100 00100 00100 01110",
    "n": "00000 00000 10110 11001 10001 10001 10001", "s": "00000 00000 01111 10000 01110 00001 11110",
    "h": "10000 10000 10110 11001 10001 10001 10001", "u": "00000 00000 10001 10001 10011 11101 10000",
}  # fmt: skip


def text_mask(text: str, scale_px: int = 1) -> np.ndarray:
    """Letters as a bool array, 7 x `scale_px` high. ``u`` is drawn with a leg and stands for micro."""
    columns = []
    for letter in text:
        columns.append(np.array([[c == "1" for c in row] for row in _GLYPHS[letter].split()]))
        columns.append(np.zeros((7, 1), bool))
    return np.kron(np.hstack(columns[:-1]), np.ones((scale_px, scale_px), bool)).astype(bool)


def stamp(mask: np.ndarray, shape: tuple[int, int], top: int, left: int) -> np.ndarray:
    """`mask` placed on a frame of `shape`, cut at its edges."""
    frame = np.zeros(shape, bool)
    bottom, right = min(top + mask.shape[0], shape[0]), min(left + mask.shape[1], shape[1])
    if bottom > top and right > left:
        frame[top:bottom, left:right] = mask[: bottom - top, : right - left]
    return frame


def scale_bar(shape: tuple[int, int], pixel_x_um: float, unit_nm: bool = False) -> np.ndarray:
    """Bar of a round length near a fifth of the width, lower right, with its length above; bool."""
    target = shape[1] * pixel_x_um / 5 * (1000 if unit_nm else 1)
    decade = 10.0 ** np.floor(np.log10(target))
    length = max(f * decade for f in (1, 2, 5) if f * decade <= target)
    bar_px = round(length / (1000 if unit_nm else 1) / pixel_x_um)
    thick, margin = max(2, shape[0] // 110), max(4, shape[0] // 32)
    bar = stamp(np.ones((thick, bar_px), bool), shape, shape[0] - margin - thick, shape[1] - margin - bar_px)
    scale_px = max(1, shape[0] // 256)
    text = text_mask(f"{length:g} {'n' if unit_nm else 'u'}m", scale_px)
    left = shape[1] - margin - bar_px // 2 - text.shape[1] // 2
    return bar | stamp(text, shape, shape[0] - margin - thick - 8 * scale_px - 2, max(left, 0))


def time_stamp(shape: tuple[int, int], time_s: float) -> np.ndarray:
    """Time of the frame, upper left; bool."""
    text = f"{time_s / 60:.1f} min" if time_s >= 60 else f"{time_s:.1f} s"
    return stamp(text_mask(text, max(1, shape[0] // 256)), shape, max(3, shape[0] // 40), max(3, shape[1] // 40))
