"""Tracks and events of simulated droplets whose births, merges and deaths are known exactly."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from seg.errors import DataError
from seg.labels import load_schema
from seg.metrics.events import event_measurements
from seg.metrics.frame import Frame
from seg.metrics.table import Scale
from seg.objects import label_objects, object_table
from seg.tracking import Tracker, TrackingSettings, track_objects

SCALE = Scale((0.5, 0.5))


@dataclass
class Droplets:
    instances: list
    objects: pd.DataFrame
    events: pd.DataFrame  # event, time_s, y_px, x_px (on the sample)
    times_s: np.ndarray
    drift_px: np.ndarray


def table_of(image, k, *, scale=SCALE, limit_px=0.0, artifact=None):
    schema = load_schema("lithium")
    labels = np.where(image > 0, schema.index("deposit"), schema.index("substrate")).astype(np.uint8)
    if artifact is not None:
        labels[artifact] = schema.index("artifact")
    return object_table(Frame(labels, schema, scale, k, instances=image), min_diameter_px=limit_px)


def follow(images, *, scale=SCALE, settings=None, limit_px=0.0, artifact=None):
    tables = [table_of(image, k, scale=scale, limit_px=limit_px, artifact=artifact) for k, image in enumerate(images)]
    times_s = np.arange(len(images)) * 2.0
    return track_objects(images, pd.concat(tables), scale=scale, frame_times_s=times_s, settings=settings)


def discs(*circles, shape=(80, 90)):
    """Object ids 1, 2, ... for circles (y, x, radius); later ones lie on top."""
    image = np.zeros(shape, np.int32)
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    for name, (*centre, radius) in enumerate(circles, start=1):
        image[sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2] = name
    return image


def kinds(tracking):
    return tracking.events["event"].tolist()


def simulate(
    rng, *, n=40, shape=(240, 260), n_frames=40, dt_s=0.5, velocity=0.8, rate=0.25, drift_px=0.0, shrink_from=None,
    from_masks=False, min_px=2.5, margin=12,
):  # fmt: skip
    """Radii grow at constant `velocity` (px/s); from frame `shrink_from` on they shrink three times as fast."""
    height, width = shape
    fine = 20
    clock = np.arange(n_frames * fine) * dt_s / fine
    births = np.sort(rng.exponential(1 / rate, n))
    places = np.stack([rng.uniform(margin, height - margin, n), rng.uniform(margin, width - margin, n)], axis=1)
    walk = np.cumsum(rng.normal(0, drift_px, (n_frames, 2)), axis=0)
    walk -= walk[0]
    alive, events, frames, waiting = [], [], [], list(zip(births, places, strict=True))
    plating = np.inf if shrink_from is None else shrink_from * dt_s
    for i, time in enumerate(clock):
        step = dt_s / fine
        for drop in alive:
            drop[2] += velocity * step if time < plating else -3 * velocity * step
            # Seen from min_px on, gone below it.
            if not drop[3] and drop[2] >= min_px:
                drop[3] = True
                events.append(("birth", time, drop[0], drop[1]))
            elif drop[3] and drop[2] < min_px:
                events.append(("disappearance", time, drop[0], drop[1]))
                drop[2] = -1.0
        alive = [drop for drop in alive if drop[2] > 0]
        while waiting and waiting[0][0] <= time and time < plating:
            _, (y, x) = waiting.pop(0)
            bare = all(np.hypot(y - d[0], x - d[1]) > d[2] + min_px + 1.5 for d in alive)
            if bare:
                alive.append([y, x, 0.1, False])
        fused = True
        while fused:
            fused = False
            for a in range(len(alive)):
                for b in range(a + 1, len(alive)):
                    p, q = alive[a], alive[b]
                    if np.hypot(p[0] - q[0], p[1] - q[1]) < p[2] + q[2]:
                        u, v = p[2] ** 3, q[2] ** 3
                        both = [(p[0] * u + q[0] * v) / (u + v), (p[1] * u + q[1] * v) / (u + v), (u + v) ** (1 / 3)]
                        if p[3] and q[3]:
                            events.append(("merge", time, both[0], both[1]))
                        alive = [d for k, d in enumerate(alive) if k not in (a, b)] + [[*both, p[3] or q[3]]]
                        fused = True
                        break
                if fused:
                    break
        if i % fine == fine - 1:
            frames.append([(d[0], d[1], d[2]) for d in alive if d[3]])
    yy, xx = np.mgrid[:height, :width]
    instances, tables = [], []
    for k, drops in enumerate(frames):
        image = np.zeros(shape, np.int32)
        names = rng.permutation(len(drops)) + 1
        for (y, x, r), name in zip(drops, names, strict=True):
            image[(yy - y - walk[k, 0]) ** 2 + (xx - x - walk[k, 1]) ** 2 <= r**2] = name
        if from_masks:
            image = label_objects(image > 0, scale=SCALE)
        instances.append(image)
        tables.append(table_of(image, k))
    truth = pd.DataFrame(events, columns=["event", "time_s", "y_px", "x_px"])
    truth = truth[truth["time_s"] > dt_s]  # what is there in the first frame was not seen to appear
    # Without objects nobody can see the sample move: it counts from the first frame that shows any.
    unseen = walk[next(k for k, drops in enumerate(frames) if drops)]
    walk, truth = walk - unseen, truth.assign(y_px=truth["y_px"] + unseen[0], x_px=truth["x_px"] + unseen[1])
    times_s = (np.arange(n_frames) + 1) * dt_s
    return Droplets(instances, pd.concat(tables, ignore_index=True), truth, times_s, walk)


def event_f1(found, truth, kind, *, tolerance_s, tolerance_px, pixel_um=0.5):
    """F1 score of events matched one to one within a time and a distance on the sample."""
    from scipy.optimize import linear_sum_assignment

    found = found[found["event"] == kind]
    found = found.loc[found.index.repeat(found["count"])]
    truth = truth[truth["event"] == kind]
    if not len(found) and not len(truth):
        return 1.0
    place = found[["y_um", "x_um"]].to_numpy() - found[["drift_y_um", "drift_x_um"]].to_numpy()
    apart = np.linalg.norm(place[:, None] / pixel_um - truth[["y_px", "x_px"]].to_numpy()[None], axis=2)
    late = np.abs(found["time_s"].to_numpy()[:, None] - truth["time_s"].to_numpy()[None])
    good = (apart <= tolerance_px) & (late <= tolerance_s + 1e-9)
    rows, columns = linear_sum_assignment(~good)
    return 2 * good[rows, columns].sum() / (len(found) + len(truth))


def seen_whole(drops, shape, radius_px=4):
    """Births whose place lies inside the frame in which they are first seen and in the one before."""
    births = drops.events[drops.events["event"] == "birth"]
    first = np.minimum(np.searchsorted(drops.times_s, births["time_s"]), len(drops.times_s) - 1)
    inside = np.ones(len(births), bool)
    for frame in (first - 1, first):
        place = births[["y_px", "x_px"]].to_numpy() + drops.drift_px[frame]
        inside &= ((place > radius_px) & (place < np.array(shape) - 1 - radius_px)).all(axis=1)
    return inside


CASES = {
    "still": {},
    "drifting": {"drift_px": 3.0},
    "drifting fast": {"drift_px": 6.0},
    "regions of a mask": {"from_masks": True},
    "plating and stripping": {"shrink_from": 25, "n_frames": 60},
}


@pytest.mark.parametrize("case", CASES)
def test_events_of_coalescing_droplets(case):
    """Births within 1 and merges within 20 % per series; F1 at a frame and the time in which a pixel of gap closes."""
    scores = {"birth": [], "merge": [], "disappearance": []}
    for seed in range(2):
        drops = simulate(np.random.default_rng(seed), **CASES[case])
        found = track_objects(drops.instances, drops.objects, scale=SCALE, frame_times_s=drops.times_s)
        counts = found.events.groupby("event")["count"].sum()
        truth = drops.events["event"].value_counts()
        # What the frame cuts, or the drift has only just brought in, may as well have entered.
        assert abs(counts["birth"] - seen_whole(drops, drops.instances[0].shape).sum()) <= 1
        assert abs(counts["merge"] - truth["merge"]) <= max(1, 0.2 * truth["merge"])
        assert "split" not in counts
        for kind, of_kind in scores.items():
            of_kind.append(event_f1(found.events, drops.events, kind, tolerance_s=0.5 + 1 / (2 * 0.8), tolerance_px=6))
        # The drift is known to a fraction of a pixel from where it can first be seen.
        seen = found.tracks.drop_duplicates("frame")
        drift = seen[["drift_y_um", "drift_x_um"]].to_numpy() / 0.5
        assert np.abs(drift - drops.drift_px[seen["frame"]]).max() < 0.5
    assert np.mean(scores["birth"]) >= 0.95
    assert np.mean(scores["merge"]) >= 0.9
    assert np.mean(scores["disappearance"]) >= 0.95


def test_merge_and_split_carry_their_lineage():
    apart, joined = discs((40, 30, 8), (40, 60, 8)), discs((40, 45, 8 * 2 ** (1 / 3)))
    joined[40, 30:61] = 1
    found = follow([apart] * 3 + [joined] * 4 + [apart] * 4, settings=TrackingSettings(max_gap_frames=2))
    assert kinds(found) == ["merge", "split"]
    assert found.events["track_ids"].tolist() == ["1;2>3", "3>4;5"]
    assert found.events["frame"].tolist() == [3, 7]
    tracks = found.tracks.drop_duplicates("track_id").set_index("track_id")
    assert tracks["parent_track_ids"].tolist() == ["", "", "1;2", "3", "3"]
    assert tracks["origin"].tolist() == ["first-frame", "first-frame", "merge", "split", "split"]
    assert tracks["fate"].tolist() == ["merge", "merge", "split", "last-frame", "last-frame"]


def test_volume_and_moment_of_a_merge():
    """Two discs approach by 1 px per side and frame; at frame 10 they touch, one frame later they are one."""
    approach = [discs((40, 35.0 + k, 6), (40, 67.0 - k, 6)) for k in range(10)]
    merged = discs((40, 51, 6 * 2 ** (1 / 3)))
    found = follow(approach + [merged] * 5, settings=TrackingSettings(remove_drift=False))
    (event,) = found.events.itertuples()
    assert event.event == "merge"
    assert event.volume_ratio == pytest.approx(1, abs=0.05)  # a pixel of the outline is 1/6 of the radius
    assert event.expected_diameter_um == pytest.approx(6 * 2 ** (1 / 3), rel=0.02)  # diameter in 0.5 um px
    assert event.contact_time_s == pytest.approx(20.0, abs=0.5)  # gap 32 - 2k - 12 closes at k = 10, 2 s per frame


def test_three_into_one_are_two_merges():
    three, one = discs((40, 25, 8), (40, 45, 8), (40, 65, 8)), discs((40, 45, 9))
    one[36:45, 20:71] = 1
    found = follow([three] * 3 + [one] * 3)
    rows = {row.metric: row for row in event_measurements(found, scale=SCALE) if row.frame is None}
    assert rows["merge_count"].value == 2
    assert (rows["merge_count"].low, rows["merge_count"].high) == pytest.approx((0.2422, 7.2247), abs=1e-4)


def test_a_small_droplet_swallowed_from_afar_is_a_merge_and_an_evaporated_one_is_not():
    before = discs((40, 40, 15), (40, 60, 4))
    swallowed, vanished = discs((40, 40.4, 15.2)), discs((40, 40, 15))
    assert kinds(follow([before] * 3 + [swallowed] * 4)) == ["merge"]
    assert kinds(follow([before] * 3 + [vanished] * 4)) == ["disappearance"]


@pytest.mark.parametrize("missing", [1, 2])
def test_gaps_are_bridged(missing):
    both, one = discs((30, 30, 6), (50, 60, 6)), discs((30, 30, 6))
    found = follow([both] * 3 + [one] * missing + [both] * 3)
    assert kinds(found) == []
    assert found.tracks["track_id"].nunique() == 2
    longer = follow([both] * 3 + [one] * 3 + [both] * 3)
    assert kinds(longer) == ["disappearance", "birth"]


def test_neighbours_joined_or_broken_for_a_moment_make_no_events():
    apart, joined = discs((40, 35, 7), (40, 52, 7)), discs((40, 35, 7), (40, 52, 7))
    joined[40, 35:52] = 1
    joined[joined > 0] = 1
    found = follow([apart] * 3 + [joined] * 2 + [apart] * 3)
    assert kinds(found) == []
    assert found.tracks["track_id"].nunique() == 2
    found = follow([joined] * 3 + [apart] + [joined] * 3)
    assert kinds(found) == []
    assert found.tracks["track_id"].nunique() == 1


def test_entering_and_leaving_the_frame_is_neither_birth_nor_disappearance():
    images = [discs((40, -8 + 4 * k, 6), (20, 40, 6), (60, 70, 6)) for k in range(28)]
    found = follow(images, settings=TrackingSettings(remove_drift=False))
    assert kinds(found) == []
    assert set(found.tracks["origin"]) == {"first-frame", "entered"}
    assert set(found.tracks["fate"]) == {"last-frame", "left"}


def test_objects_that_the_drift_brings_in_are_not_born():
    scene = discs((20, 20, 5), (50, 30, 5), (30, 60, 5), (40, 90, 5), (20, 100, 5), (60, 115, 5), shape=(80, 130))
    images = [label_objects(scene[:, k : k + 75] > 0, scale=SCALE) for k in range(0, 55, 11)]
    found = follow(images)
    assert kinds(found) == []
    drift = found.tracks.groupby("frame")["drift_x_um"].first()
    assert drift.to_numpy() == pytest.approx(-0.5 * 11 * np.arange(5), abs=0.05)


def test_what_comes_from_under_an_artefact_is_not_born():
    covered = np.zeros((80, 90), bool)
    covered[:, :40] = True
    hidden, shown = discs((60, 70, 5)), discs((60, 70, 5), (30, 43, 3))
    assert kinds(follow([hidden] * 3 + [shown] * 3, artifact=covered)) == []
    assert kinds(follow([hidden] * 3 + [shown] * 3)) == ["birth"]


def test_noise_and_objects_under_the_detection_limit_make_no_events():
    quiet, speck = discs((40, 40, 6)), discs((40, 40, 6), (60, 70, 1.5))
    images = [quiet] * 3 + [speck] + [quiet] * 3
    found = follow(images)
    assert kinds(found) == []
    assert "unconfirmed" in set(found.tracks["origin"])
    assert kinds(follow(images, settings=TrackingSettings(min_frames=1))) == ["birth", "disappearance"]
    assert kinds(follow([quiet] * 3 + [speck] * 3)) == ["birth"]
    assert kinds(follow([quiet] * 3 + [speck] * 3, limit_px=4.0)) == []


def test_no_objects_one_frame_and_unknown_scale():
    nothing = np.zeros((20, 30), np.int32)
    empty = follow([nothing] * 3)
    assert len(empty.tracks) == len(empty.events) == 0
    assert {row.value for row in event_measurements(empty, scale=SCALE)} == {0.0}
    single = event_measurements(follow([discs((40, 40, 6))]), scale=SCALE)
    assert all(math.isnan(row.value) and row.flags == ("single-frame",) for row in single)
    blank = {
        row.frame: row for row in event_measurements(empty, scale=SCALE, unseen=[1, 2]) if row.metric == "birth_count"
    }
    assert {math.isnan(row.value) for row in blank.values()} == {True}  # one frame that shows anything is no series
    assert blank[None].flags == blank[2].flags == ("artifact-frame",)
    partly = {row.frame: row.value for row in event_measurements(empty, scale=SCALE, unseen=[1])}
    assert math.isnan(partly[1])
    assert partly[None] == partly[2] == 0
    scale = Scale((1.0, 1.0), calibrated=False)
    found = follow([nothing, *[discs((10, 12, 4), shape=(20, 30))] * 2], scale=scale)
    assert found.events[["y_px", "x_px"]].to_numpy().tolist() == [[10.0, 12.0]]
    assert event_measurements(found, scale=scale)[0].flags == ("uncalibrated",)


def test_births_per_frame_are_rows_of_their_own():
    one, three = discs((40, 20, 5)), discs((40, 20, 5), (20, 50, 5), (60, 70, 5))
    rows = event_measurements(follow([one, one, three, three]), scale=SCALE, class_name="deposit")
    births = [(row.frame, row.time_s, row.value) for row in rows if row.frame is not None]
    assert births == [(1, 2.0, 0.0), (2, 4.0, 2.0), (3, 6.0, 0.0)]


def test_volumes_and_anisotropic_pixels():
    scale = Scale((1.0, 0.5, 0.25))
    two = discs((10, 20, 12, 5), (10, 20, 40, 5), shape=(20, 40, 60))
    one = discs((10, 20, 26, 5 * 2 ** (1 / 3)), shape=(20, 40, 60))
    one[10, 20, 10:43] = 1
    found = follow([two] * 3 + [one] * 3, scale=scale)
    (event,) = found.events.itertuples()
    assert event.event == "merge"
    assert (event.z_um, event.y_um, event.x_um) == pytest.approx((10, 10, 6.5), abs=0.05)
    assert event.volume_ratio == pytest.approx(1, abs=0.1)


def test_wrong_input_is_refused():
    image = discs((40, 40, 6))
    tracker = Tracker(SCALE)
    tracker.add(image, table_of(image, 0))
    with pytest.raises(DataError, match="shape"):
        tracker.add(image[:50], table_of(image[:50], 1))
    with pytest.raises(DataError, match="does not hold"):
        tracker.add(np.zeros_like(image), table_of(image, 1))
    with pytest.raises(ValueError, match="min_overlap"):
        TrackingSettings(min_overlap=0)


def test_laptrack_finds_the_same_births_and_merges():
    pytest.importorskip("laptrack")
    from laptrack import OverLapTrack

    drops = simulate(np.random.default_rng(3), n=15, shape=(140, 150), n_frames=24)
    first = next(k for k, image in enumerate(drops.instances) if image.any())
    images = drops.instances[first:]
    found = follow(images)
    peer = OverLapTrack(cutoff=0.9, splitting_cutoff=0.9, merging_cutoff=0.9, gap_closing_cutoff=0.9)
    tracks, _, merges = peer.predict_overlap_dataframe(np.array(images))
    starts = tracks.reset_index().groupby("track_id")["frame"].min()
    births = int(((starts > 0) & ~starts.index.isin(merges["child_track_id"])).sum())
    counts = found.events.groupby("event")["count"].sum()
    assert abs(counts["birth"] - births) <= 2
    assert abs(counts["merge"] - (len(merges) - merges["child_track_id"].nunique())) <= 3
