"""How often objects are born, merge, split and disappear."""

from __future__ import annotations

import math
from collections.abc import Collection

from seg.lineage import EVENTS
from seg.metrics.history import History
from seg.metrics.table import Measurement, Scale
from seg.tracking import Tracking, TrackingSettings
from seg.uncertainty import poisson_interval

_DEFAULT = TrackingSettings()


def measure_whole(
    history: History,
    *,
    max_gap_frames: int = _DEFAULT.max_gap_frames,
    min_overlap: float = _DEFAULT.min_overlap,
    min_frames: int = _DEFAULT.min_frames,
    remove_drift: bool = _DEFAULT.remove_drift,
    contact_px: int = _DEFAULT.contact_px,
) -> list[Measurement]:
    """Count the events of a series that was tracked; the options are those of `TrackingSettings`.

    They act while the frames are read, before this function is called.
    """
    if history.tracking is None:
        return []
    areas = history.table[(history.table["metric"] == "valid_area") & (history.table["value"] == 0)]
    return event_measurements(
        history.tracking, scale=history.scale, class_name="+".join(history.object_classes),
        unseen=areas["frame"].dropna().astype(int),
    )  # fmt: skip


def event_measurements(
    tracking: Tracking, *, scale: Scale, class_name: str = "", unseen: Collection[int] = ()
) -> list[Measurement]:  # fmt: skip
    """How many events of each kind the series shows, and the births of every frame after the first.

    Parameters
    ----------
    tracking : Tracking
    scale : Scale
    class_name : str
        Of the objects.
    unseen : collection of int
        Frames without a valid pixel.

    Returns
    -------
    list of Measurement
        ``birth_count``, ``merge_count``, ``split_count`` and ``disappearance_count`` of the series with exact Poisson
        intervals (k parents are k - 1 merges), and ``birth_count`` of each frame after the first. A single frame
        gives NaN with the flag ``single-frame``; so does, with ``artifact-frame``, a series of which less than two
        frames show anything, and an `unseen` frame.
    """
    rows = []
    unseen = set(unseen) & set(tracking.frames)
    single = tracking.n_frames - len(unseen) < 2
    why = "single-frame" if tracking.n_frames < 2 else "artifact-frame"
    flags = (*scale.flags, *((why,) if single else ()))
    counts = tracking.events.groupby("event")["count"].sum()
    for kind in EVENTS:
        n = int(counts.get(kind, 0))
        low, high = (math.nan, math.nan) if single else poisson_interval(n)
        rows.append(
            Measurement(
                f"{kind}_count", math.nan if single else float(n), "1", low=low, high=high, class_name=class_name, n=n,
                method="overlap tracking, exact Poisson interval", flags=flags,
            )
        )  # fmt: skip
    births = tracking.events[tracking.events["event"] == "birth"].groupby("frame").size()
    for frame, time_s in zip(tracking.frames[1:], tracking.times_s[1:], strict=True):
        n = int(births.get(frame, 0))
        rows.append(
            Measurement(
                "birth_count", math.nan if frame in unseen else float(n), "1", class_name=class_name, frame=frame,
                time_s=None if math.isnan(time_s) else time_s, n=n, method="overlap tracking",
                flags=(*scale.flags, *(("artifact-frame",) if frame in unseen else ())),
            )
        )  # fmt: skip
    return rows
