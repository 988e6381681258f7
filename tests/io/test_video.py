"""Videos: the right frame at the right place, whatever the codec."""

import numpy as np
import pytest

from seg.errors import DataError
from seg.io import arrays, open_stack
from seg.io.video import VideoFrames


def bars(n=24, height=48, width=64):
    """Frame i is bright left of column 2 i + 8: recognisable after any lossy codec."""
    frames = np.full((n, height, width), 40, np.uint8)
    for i in range(n):
        frames[i, :, : 2 * i + 8] = 200
    return frames


def edge(frame):
    """Columns that are bright in a frame, [Y, X] or [C, Y, X]."""
    return int((frame.reshape(-1, frame.shape[-1]).mean(0) > 120).sum())


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.mp4", "libx264", "yuv420p"),  # with frames stored out of order
        ("a.mov", "mpeg4", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("b.avi", "ffv1", "gray"),
        ("c.avi", "rawvideo", "bgr24"),
    ],
)
def test_any_frame_can_be_read_in_any_order(tmp_path, make, monkeypatch, name, codec, pixel_format):
    monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 0)
    frames = bars()
    make.video(tmp_path / name, frames, codec=codec, pixel_format=pixel_format)
    stack = open_stack(tmp_path / name)
    assert stack.n_frames == len(frames)
    assert stack.spatial_shape == frames.shape[1:]
    for index in [*range(0, 24, 5), 23, 3, 2, 4, 0]:
        assert abs(edge(stack.frame(index)) - (2 * index + 8)) <= 1  # a lossy edge may move by a pixel


def test_times_for_play_back_are_not_the_times_of_the_experiment(tmp_path, make):
    make.video(tmp_path / "a.avi", bars(6), rate=25)
    stack = open_stack(tmp_path / "a.avi")
    assert stack.frame_times_s is None
    assert stack.calibration.source == "none"
    assert stack.metadata["playback_interval_s"] == pytest.approx(0.04)
    assert open_stack(tmp_path / "a.avi", frame_interval_s=3.0).frame_times_s[-1] == 15.0


def test_colour_is_kept_and_grey_stored_as_colour_becomes_grey(tmp_path, make):
    grey = bars(4)
    make.video(tmp_path / "grey.avi", grey, codec="rawvideo", pixel_format="bgr24")
    stack = open_stack(tmp_path / "grey.avi")
    assert stack.axes == "tyx"
    np.testing.assert_array_equal(stack.data, grey)
    colour = np.stack([grey, grey // 2, grey // 4], -1)
    make.video(tmp_path / "colour.avi", colour, codec="rawvideo", pixel_format="bgr24")
    stack = open_stack(tmp_path / "colour.avi")
    assert stack.axes == "tcyx"
    np.testing.assert_array_equal(stack.data, np.moveaxis(colour, -1, 1))


def test_more_than_8_bits_are_kept(tmp_path, make):
    make.video(tmp_path / "a.avi", bars(3), codec="ffv1", pixel_format="gray16le")
    stack = open_stack(tmp_path / "a.avi")
    assert stack.dtype == np.uint16
    assert np.ptp(stack.frame(0)) > 255


def test_sound_only_and_frames_that_are_gone(tmp_path, make):
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(DataError, match="holds no video track"):
        open_stack(tmp_path / "sound.mp4")
    make.video(tmp_path / "a.avi", bars(20), codec="mjpeg", pixel_format="yuvj420p")
    content = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="declares 20 frames but holds|damaged or cut off"):
        open_stack(tmp_path / "a.avi")


def test_reading_forwards_seeks_once(tmp_path, make, monkeypatch):
    make.video(tmp_path / "a.mp4", bars(), codec="libx264", pixel_format="yuv420p")
    frames = VideoFrames(tmp_path / "a.mp4")

    class Counting:
        def __init__(self, container):
            self.container, self.seeks = container, 0

        def seek(self, *args, **options):
            self.seeks += 1
            return self.container.seek(*args, **options)

        def __getattr__(self, name):
            return getattr(self.container, name)

    counting = frames._container = Counting(frames._container)
    for index in range(24):
        frames[(slice(index, index + 1), slice(None), slice(None))]
    assert counting.seeks == 1
    frames.close()
