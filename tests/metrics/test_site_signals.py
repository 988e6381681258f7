"""Grey values at the sites of nuclei: drawn discs of known area, seen by the masks only once they have grown."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from seg.labels import load_schema
from seg.metrics.birth_dating import dated_births
from seg.metrics.birth_series import birth_series
from seg.metrics.counting import measure_frame as count
from seg.metrics.events import event_measurements
from seg.metrics.frame import Frame
from seg.metrics.site_signals import site_signals
from seg.metrics.table import Scale, to_table
from seg.objects import label_objects, object_table
from seg.stack import Calibration, Stack
from seg.tracking import TrackingSettings, track_objects

SPACING, STEP_S, CONTRAST = (0.5, 0.4), 0.2, -40.0
SHAPE, SEEN_PX = (60, 360), 70
PITCH = 40


def discs(born, rates, n_frames, *, noise=1.0, drift_px=(0, 0), power=1.0, rng=None):
    """Images and masks of discs of area rate (t - born)^power in px per frame, on a support with an edge."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    ground = np.where(y > 34, 100.0, 160.0) + ndimage.gaussian_filter(rng.normal(0, 30, SHAPE), 2)
    images, masks = [], []
    for frame in range(n_frames):
        area = rates * np.maximum(frame - born, 0) ** power
        image, mask = ground.copy(), np.zeros(SHAPE, bool)
        for site, size in enumerate(area):
            inside = np.sqrt(size / np.pi) - np.hypot(y - 30, x - (site + 0.5) * PITCH)
            share = np.clip(inside + 0.5, 0, 1)
            image += CONTRAST * share * (size / max(share.sum(), size, 1e-9))
            if size > SEEN_PX:
                mask |= inside > 0
        moved = tuple(np.multiply(drift_px, frame))
        image = ndimage.gaussian_filter(image, 0.7 + 0.5 * (frame % 3 == 0))  # the focus wavers
        images.append(np.roll(image, moved, (0, 1)) + rng.normal(0, noise, SHAPE))
        masks.append(np.roll(mask, moved, (0, 1)))
    return np.stack(images).astype(np.float32), np.stack(masks)


def followed(images, masks):
    """Stack, object ids, tracks and the rows of births."""
    scale, schema = Scale(SPACING), load_schema("lithium")
    times = tuple(STEP_S * k for k in range(len(images)))
    ids = [label_objects(mask, scale=scale) for mask in masks]
    frames = [
        Frame(np.where(mask, 3, 1).astype(np.uint8), schema, scale, k, times[k], instances=ids[k],
              object_classes=("deposit",))
        for k, mask in enumerate(masks)
    ]  # fmt: skip
    objects = pd.concat([object_table(frame) for frame in frames], ignore_index=True)
    settings = TrackingSettings(remove_drift=True)
    tracking = track_objects(ids, objects, scale=scale, frame_times_s=times, settings=settings)
    rows = [row for frame in frames for row in count(frame)] + event_measurements(tracking, scale=scale)
    stack = Stack(images, "tyx", Calibration(dict(zip("yx", SPACING, strict=True)), times))
    return stack, ids, tracking.tracks, to_table(rows)


def signals_of(stack, ids, tracks):
    return site_signals(stack, lambda frame: ids[frame], tracks, scale=Scale(SPACING))


def test_the_signal_is_area_times_contrast_before_the_mask_shows_anything(rng):
    images, masks = discs(np.array([2.5]), np.array([30.0]), 9, rng=rng)
    stack, ids, tracks, _ = followed(images, masks)
    assert tracks["frame"].min() == 5  # 75 px
    signal = signals_of(stack, ids, tracks).set_index("frame")["signal"]
    assert signal.index.tolist() == list(range(9))
    area = 30 * np.maximum(np.arange(9) - 2.5, 0)
    change = (signal - signal.iloc[:3].mean()).to_numpy()
    # Noise of 1 grey value over a site of some 600 px and its ring leaves 35; wavering focus, a few per cent.
    np.testing.assert_allclose(change, CONTRAST * area, atol=250)


def test_a_drifting_sample_is_followed(rng):
    born = np.array([-30.0, -25.0, -20.0, 2.5, 3.5, -15.0])  # those before the first frame tell the drift
    images, masks = discs(born, np.where(born < 0, 8.0, 30.0), 11, drift_px=(0, -2), rng=rng)
    stack, ids, tracks, _ = followed(images, masks)
    signals = signals_of(stack, ids, tracks)
    newborn = signals.groupby("track_id")
    assert len(newborn) == 2
    for (_, site), start in zip(newborn, born[[3, 4]], strict=True):
        values = site.set_index("frame")["signal"]
        assert values.index[0] == 0
        change = values - values.loc[:2].mean()
        np.testing.assert_allclose(change, CONTRAST * 30 * np.maximum(values.index - start, 0), atol=350)


@pytest.mark.parametrize(("power", "law"), [(1.0, "area"), (2.0, "diameter")])
def test_births_are_dated_by_grey_values_to_a_third_of_a_frame(rng, power, law):
    born = np.array([0.0, 0.0, 0.0, 1.4, 2.6, 3.3, 4.5, 5.2, 6.7])
    rates = rng.uniform(22, 34, 9) / (3 if power == 2 else 1)
    images, masks = discs(born, rates, 16, power=power, rng=rng)
    stack, ids, tracks, table = followed(images, masks)
    seen = birth_series(table)
    dated = dated_births(seen, tracks, signals=signals_of(stack, ids, tracks), pixel=0.45)
    truth = np.bincount(np.maximum(np.ceil(born), 1).astype(int), minlength=16)
    assert f"grey values at their sites ({law} in proportion" in dated.dated
    assert dated.dated_back
    # Cumulative numbers: a date that is off by a third of a frame crosses at most one border of a frame.
    assert np.abs(np.cumsum(dated.births) - np.cumsum(truth)).max() <= 1
    assert np.abs(np.cumsum(seen.births) - np.cumsum(truth)).max() >= 3
    assert 0 < dated.scatter_s < STEP_S
    assert 0 < dated.late_s < 0.5 * STEP_S


def test_images_that_show_nothing_leave_it_to_the_masks(rng):
    images, masks = discs(np.linspace(0, 6, 9), np.full(9, 30.0), 16, rng=rng)
    stack, ids, tracks, table = followed(rng.normal(100, 3, images.shape), masks)
    plain = dated_births(birth_series(table), tracks)
    dated = dated_births(birth_series(table), tracks, signals=signals_of(stack, ids, tracks))
    assert dated.births.tolist() == plain.births.tolist()
    assert "grey values" not in dated.dated
