"""Every real image opens, with the shape and axes its description states."""

import json

import numpy as np
import pytest

from seg.errors import DataError, LabelError
from seg.io import find_inputs, open_stack, read_labels
from seg.labels import LabelClass, LabelSchema

EXPECTED = {  # path: (axes to give, axes, shape, type)
    "lctem_etching_4d_masks/pd_au_np_18x121x151x151.tif": (None, "tzyx", (18, 121, 151, 151), "uint8"),
    "lctem_etching_4d_masks/cu3as_7x129x129x129.tif": (None, "tzyx", (7, 129, 129, 129), "uint8"),
    "lctem_etching_4d_masks/chiral_au_7x129x129x129.tif": (None, "tzyx", (7, 129, 129, 129), "uint8"),
    "lctem_etching_4d_masks/raw_projection_512.tif": (None, "yx", (512, 512), "float32"),
    "optical_foam_series/foam_9x768x768.tif": (None, "tyx", (9, 768, 768), "uint8"),
    "optical_growth_series/frames.tif": (None, "tyx", (13, 303, 288), "uint8"),
    "optical_growth_series/example_crystal_growth.gif": (None, "tyx", (13, 303, 288), "uint8"),
    "tem_particles_sparse_labels/0.tif": (None, "yx", (512, 512), "uint8"),
    "xct_nmc_electrode_segmented/nmc1cal_cbd_bridge.tif": ("zyx", "zyx", (251, 301, 301), "uint8"),
    "xct_nmc_grey_slice/NMC_90wt_2000bar_115.tif": (None, "yx", (853, 846), "uint8"),
    "xray_txm_raw_battery/sb_electrode_0p88V_4x512x512.tif": ("tyx", "tyx", (4, 512, 512), "uint16"),
    "sem_dendrites/images": (None, "tyx", (11, 985, 1536), "uint8"),
    "sem_dendrites/instances": (None, "tyx", (11, 985, 1536), "uint16"),
    "sem_film_cracks/images": (None, "tyx", (8, 1024, 1024), "uint8"),
    "sem_precipitates/images": (None, "tyx", (14, 512, 512), "uint8"),
    "sessile_drops_copper_teflon/copper1.jpg": (None, "cyx", (3, 480, 640), "uint8"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_axes_shape_and_type(shared_data, name):
    axes, *expected = EXPECTED[name]
    if axes is not None:
        with pytest.raises(DataError, match="time or depth"):
            open_stack(shared_data / name)
    stack = open_stack(shared_data / name, axes=axes)
    assert [stack.axes, stack.shape, str(stack.dtype)] == expected
    assert (stack.calibration.source, stack.spacing_um) == ("none", None)  # 96 dpi in the photos is no pixel size


def test_single_images_of_every_folder(shared_data):
    for pattern in ("sem_*/*/*.jpg", "sem_*/*/*.png", "sessile_drops_copper_teflon/*.jpg"):
        for path in find_inputs([str(shared_data / pattern)]):
            assert open_stack(path).axes in ("yx", "cyx")


def test_the_decoded_film_equals_the_published_one(shared_data):
    folder = shared_data / "optical_growth_series"
    times = json.loads((folder / "times.json").read_text())["time_s"]
    film, frames = (open_stack(folder / name) for name in ("example_crystal_growth.gif", "frames.tif"))
    np.testing.assert_array_equal(film.data, frames.data)
    assert frames.n_frames == len(times)
    assert find_inputs([folder]) == [film.source, frames.source]


def test_folders_of_different_photos_say_so(shared_data):
    with pytest.raises(DataError, match=r"but not teflon1.jpg \(480 x 604 RGB uint8\), teflon2.jpg"):
        open_stack(shared_data / "sessile_drops_copper_teflon")


def test_masks_get_their_meaning(shared_data):
    cracks = LabelSchema("cracks", (LabelClass(1, "film", "#009e73"), LabelClass(2, "crack", "#d55e00")))
    back = read_labels(shared_data / "sem_film_cracks" / "masks", schema=cracks)
    assert back.stack.shape == (8, 1024, 1024)
    assert 0.002 < np.mean(back.stack.data == 2) < 0.004  # the published share of crack pixels
    with pytest.raises(LabelError, match="does not say"):
        read_labels(shared_data / "sem_film_cracks" / "masks")
