"""Single images and folders of them."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from seg.errors import DataError
from seg.io import arrays, open_stack


def grey(height=20, width=30, dtype=np.uint8, scale=1):
    return (np.arange(height * width).reshape(height, width) * scale % np.iinfo(dtype).max).astype(dtype)


def save(path, data, **options):
    Image.fromarray(data).save(path, **options)
    return path


def test_grey_images_of_8_and_16_bits(tmp_path):
    for data in (grey(), grey(dtype=np.uint16, scale=97)):
        stack = open_stack(save(tmp_path / "a.png", data))
        assert (stack.axes, stack.dtype, stack.calibration.source) == ("yx", data.dtype, "none")
        np.testing.assert_array_equal(stack.data, data)


def test_one_bit_png(tmp_path):
    data = grey() % 3 == 0
    Image.fromarray(data).save(tmp_path / "a.png")
    stack = open_stack(tmp_path / "a.png")
    assert stack.dtype == np.uint8
    np.testing.assert_array_equal(stack.data, data)


def test_colour_keeps_its_bits_and_moves_the_channels_first(tmp_path):
    data = np.stack([grey(), grey(scale=3), grey(scale=7)], -1)
    stack = open_stack(save(tmp_path / "a.png", data))
    assert stack.axes == "cyx"
    np.testing.assert_array_equal(stack.data, np.moveaxis(data, -1, 0))
    deep = np.stack([grey(dtype=np.uint16, scale=s) for s in (97, 89, 83)], -1)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    stack = open_stack(tmp_path / "deep.png")
    assert stack.dtype == np.uint16
    np.testing.assert_array_equal(stack.data, np.moveaxis(deep, -1, 0))


def test_grey_saved_as_colour_is_grey(tmp_path):
    assert open_stack(save(tmp_path / "a.png", np.stack([grey()] * 3, -1))).axes == "yx"


@pytest.mark.parametrize(("channels", "mode"), [(4, "RGBA"), (2, "LA")])
def test_alpha_is_refused_even_when_opaque(tmp_path, channels, mode):
    data = np.stack([grey()] * (channels - 1) + [np.full((20, 30), 255, np.uint8)], -1)
    with pytest.raises(DataError, match=rf"'a.png' has {channels} channels \({mode}\); expected 1") as caught:
        open_stack(save(tmp_path / "a.png", data))
    assert caught.value.exit_code == 5


def test_cmyk_jpeg_is_refused(tmp_path):
    Image.fromarray(np.stack([grey()] * 4, -1), "CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"4 channels \(CMYK\)"):
        open_stack(tmp_path / "a.jpg")


@pytest.mark.parametrize(("dpi", "expected"), [(72, None), (300, None), (50800, {"y": 0.5, "x": 0.5})])
def test_printing_resolution_is_no_pixel_size(tmp_path, dpi, expected):
    calibration = open_stack(save(tmp_path / "a.png", grey(), dpi=(dpi, dpi))).calibration
    # PNG stores whole pixels per metre
    assert calibration.pixel_size_um == (pytest.approx(expected, rel=1e-6) if expected else {})


def test_a_gif_is_a_series_whose_times_are_unknown(tmp_path):
    frames = [grey() // 2 + i for i in range(4)]
    pictures = [Image.fromarray(f) for f in frames]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100)
    stack = open_stack(tmp_path / "a.gif")
    assert (stack.axes, stack.shape, stack.frame_times_s) == ("tyx", (4, 20, 30), None)
    np.testing.assert_array_equal(stack.data, frames)


def test_a_header_that_promises_too_much_is_refused_before_allocating(tmp_path):
    content = bytearray(save(tmp_path / "a.png", grey()).read_bytes())
    content[16:24] = (2**20).to_bytes(4, "big") * 2
    content[29:33] = imagecodecs.zlib_crc32(bytes(content[12:29])).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match="declares 1048576 x 1048576 pixels, more than it can hold"):
        open_stack(tmp_path / "a.png")


def test_large_images_are_not_bombs(tmp_path):
    data = np.zeros((13000, 14000), np.uint8)  # above the limit at which Pillow warns, and our tests would fail
    path = tmp_path / "mosaic.png"
    path.write_bytes(imagecodecs.png_encode(data, level=1))
    assert open_stack(path).shape == data.shape


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_folder_is_a_series_in_natural_order(tmp_path, monkeypatch, lazy, suffix):
    monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 0 if lazy else 2**20)
    frames = {n: grey() + n for n in (1, 2, 10, 11)}
    for number, frame in frames.items():
        path = tmp_path / f"img_{number}{suffix}"
        tifffile.imwrite(path, frame) if suffix == ".tif" else save(path, frame)
    (tmp_path / "notes.txt").write_text("a note")
    save(tmp_path / ".hidden.png", grey(5, 5))
    stack = open_stack(tmp_path, frame_interval_s=2.0)
    assert stack.axes == "tyx"
    np.testing.assert_array_equal(stack.data, list(frames.values()))
    assert stack.frame_times_s == (0.0, 2.0, 4.0, 6.0)
    assert open_stack(tmp_path, axes="zyx").axes == "zyx"


def test_a_folder_of_colour_images(tmp_path):
    for i in range(2):
        save(tmp_path / f"{i}.png", np.stack([grey(), grey(scale=3), grey(scale=5 + i)], -1))
    stack = open_stack(tmp_path)
    assert (stack.axes, stack.shape) == ("tcyx", (2, 3, 20, 30))


def test_mixed_sizes_name_the_odd_one(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", grey())
    save(tmp_path / "odd.png", grey(21, 30))
    with pytest.raises(DataError, match=r"most are 20 x 30 uint8, but not odd.png \(21 x 30 uint8\)") as caught:
        open_stack(tmp_path)
    assert caught.value.exit_code == 5


def test_mixed_types_and_stacks_in_a_folder(tmp_path):
    save(tmp_path / "0.png", grey())
    save(tmp_path / "1.png", grey())
    save(tmp_path / "2.png", grey(dtype=np.uint16))
    with pytest.raises(DataError, match=r"not 2.png \(20 x 30 uint16\)"):
        open_stack(tmp_path)
    tifffile.imwrite(tmp_path / "2.png.tif", np.stack([grey()] * 2), metadata={"axes": "TYX"})
    with pytest.raises(DataError, match="'2.png.tif' holds several images"):
        open_stack(tmp_path)


def test_a_damaged_image_in_a_folder_is_named(tmp_path, monkeypatch):
    paths = [save(tmp_path / f"{i}.png", grey(60, 70, np.uint16, 97)) for i in range(3)]
    paths[1].write_bytes(paths[1].read_bytes()[:-400])
    with pytest.raises(DataError, match="damaged or cut off"):
        open_stack(tmp_path)
    monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 0)
    stack = open_stack(tmp_path)
    stack.frame(0)
    with pytest.raises(DataError, match="damaged or cut off"):
        stack.frame(1)


@pytest.mark.parametrize("n", [3, 4])
def test_a_short_series_stored_as_colours_is_one_where_the_user_says_so(n, tmp_path, rng):
    """tifffile takes three or four planes for the colours of one image unless it is told otherwise."""
    frames = rng.integers(0, 255, (n, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="rgb", planarconfig="separate")
    stack = open_stack(tmp_path / "a.tif", axes="tyx")
    assert stack.axes == "tyx"
    np.testing.assert_array_equal(stack.data[...], frames)
    # Colours stored pixel by pixel are no series of columns.
    tifffile.imwrite(tmp_path / "b.tif", np.moveaxis(frames, 0, -1), photometric="rgb")
    with pytest.raises(DataError, match="do not fit"):
        open_stack(tmp_path / "b.tif", axes="tyx")
