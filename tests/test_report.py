"""The report of made-up results: what it says, what it must never contain, and what it does without."""

import base64
import importlib.util
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from seg.errors import DataError
from seg.labels import load_schema
from seg.metrics.table import FLAGS, Measurement, to_table
from seg.report import MAX_BYTES, write_report
from seg.report.figures import MAX_LABEL, PALETTE, contrasting, legend_labels
from seg.report.methods import methods
from seg.report.pictures import background_class, paint, round_length, scale_bar
from seg.report.saved import read_saved
from seg.report.series import absent_classes, axes_of, in_report_units, of_classes_present, series_of
from seg.report.words import FLAG_WORDS, duration, in_length_unit, number, unit_text

_spec = importlib.util.spec_from_file_location("report_folder", Path(__file__).with_name("report_folder.py"))
report_folder = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(report_folder)
build = report_folder.build


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; fails on tags that do not close."""

    VOID = {"meta", "img", "input", "br"}

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.text))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def spaced(text):
    """Text with every kind of space made plain, as `Page.text` has it."""
    return re.sub(r"\s+", " ", str(text))


def page_of(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The whole report of a series with everything: (folder, html, Page)."""
    folder = build(tmp_path_factory.mktemp("full"))
    html = write_report(folder).read_text(encoding="utf-8")
    return folder, html, Page(html)


def test_page_is_self_contained(full):
    _, html, page = full
    assert len(html.encode()) < MAX_BYTES
    assert {name for name, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert all(anchor["href"].startswith("#") for anchor in page.all("a"))
    assert not re.search(r"url\(|@import|https?://", html)
    for image in page.all("img"):
        if "svg" in image["src"][:20]:  # pictures may not fetch anything either
            svg = base64.b64decode(image["src"].split(",")[1]).decode()
            assert not re.search(r'href="(?!#)[^"]*"', svg)


def test_hostile_names_are_shown_not_run(full):
    _, html, page = full
    assert "<script" not in html
    assert "<b>twins" not in html
    assert report_folder.HOSTILE in page.text
    assert "cell & co.mpt" in page.text


def test_every_picture_says_what_it_shows(full):
    _, _, page = full
    images = page.all("img")
    assert all(len(image["alt"]) > 15 for image in images)
    assert sum("Masks over the image" in image["alt"] for image in images) == 5
    alt = next(image["alt"] for image in images if image["alt"].startswith("Dendrite height against time"))
    assert "17 of 20 frames reported" in alt


def test_ids_are_unique_and_anchors_lead_somewhere(full):
    _, _, page = full
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert {label["for"] for label in page.all("label")} <= set(ids)


def test_headline_numbers_carry_interval_unit_and_moment(full):
    _, html, page = full
    table = pd.read_csv(full[0] / "metrics.csv")
    row = table[(table["metric"] == "mean_equivalent_diameter") & (table["frame"] == 19)].iloc[0]
    assert f"{row.value:.2f} µm [{row.low:.2f}, {row.high:.2f}] frame 19, 9.5 min" in page.text
    assert "31.4 µm²/s [29.9, 32.7] over the whole series" in page.text
    # the angle of the last frame is missing: the last frame that has one is shown
    assert re.search(r"Contact angle deposit [\d.]+ ° \[[\d., ]+\] frame 18, 9 min", page.text)


def test_methods_state_what_a_reviewer_asks(full):
    _, _, page = full
    for text in (
        "20 frames of 300 × 420 pixels (y, x), uint8", "0.5 µm along y and 0.4 µm along x, as the file states it",
        "spans 9.5 min with a frame every 30 s", "2-D U-Net “optical-2d” (weights SHA-256 3c3c3c3c3c3c)",
        "41 to 0 and 214 to 1", "deposit and dendrite, with touching ones separated", "under 4 px are not counted",
        "below 0.6 are flagged: 1 of 20 frames", "per electrode area of 0.785 cm²", "bootstrap: 0",
    ):  # fmt: skip
        assert text in page.text, text


def test_flags_doubts_and_missing_numbers_are_in_words(full):
    _, _, page = full
    assert "9 of 60" in page.text
    assert page.text.count(FLAG_WORDS["no-credible-baseline"]) >= 2
    assert "mean class probability 0.52 is below 0.60" in page.text
    assert "13 could not be trusted and are not reported" in page.text


def test_provenance_is_complete(full):
    _, _, page = full
    run = json.loads((full[0] / "run.json").read_text(encoding="utf-8"))
    for text in (run["command"], run["input"]["fingerprint"], run["model"]["weights_sha256"], run["created"], "torch"):
        assert text in page.text
    assert "Greatest distance of the dendrite from the reference surface." in page.text


def test_equal_results_give_equal_bytes(tmp_path):
    folder = build(tmp_path, n_frames=4)
    html = write_report(folder).read_text(encoding="utf-8")
    assert write_report(folder).read_text(encoding="utf-8") == html
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "electrochem.csv", "metrics.csv", "objects.csv", "report.html", "run.json"
    ]  # fmt: skip


def test_curves_against_capacity_and_voltage_come_with_a_cycler_only(full, tmp_path):
    classes = [image.get("class") for image in full[2].all("img")]
    assert {"x-time", "x-capacity", "x-voltage"} <= set(classes)
    without = page_of(build(tmp_path, n_frames=4, electrochem=False))
    assert {image.get("class") for image in without.all("img")} == {None, "x-time"}
    assert "plating" not in without.text


def test_uncalibrated_masks_without_image_or_model(tmp_path):
    page = page_of(build(tmp_path, n_frames=6, calibrated=False, electrochem=False, model=False, images=False))
    text = page.text
    assert "µm" not in text.replace("Pixel size (µm)", "")
    assert "50 px" in text  # a fifth of 420 px, rounded down to 1, 2 or 5
    assert "No pixel size was known" in text
    assert "masks were made elsewhere" in text
    assert "the classes are shown alone" in text
    assert not any("Image without masks" in image["alt"] for image in page.all("img"))


def test_single_image_has_no_curves_and_says_why_a_rate_is_missing(tmp_path):
    page = page_of(build(tmp_path, n_frames=1, electrochem=False))
    assert not any((image.get("class") or "").startswith("x-") for image in page.all("img"))
    assert "One image of 300 × 420 pixels (y, x), optical microscopy in plan view, was segmented" in page.text
    assert "Area rate deposit not reported The value needs more than one frame." in page.text
    assert "frame 0" not in page.text


def test_electron_microscopy_is_in_nanometres(tmp_path):
    page = page_of(build(tmp_path, n_frames=6, modality="cryoem", electrochem=False))
    assert "500 nm along y and 400 nm along x" in page.text
    row = pd.read_csv(tmp_path / "metrics.csv").query("metric == 'mean_equivalent_diameter' and frame == 5").iloc[0]
    assert spaced(number(row.value * 1e3, row.low * 1e3, row.high * 1e3, "nm")) in page.text
    assert "µm²" not in page.text


def test_volume_slices_name_their_depth(tmp_path):
    folder = build(tmp_path, n_frames=1, electrochem=False)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    run["input"] |= {
        "axes": "zyx",
        "shape": [64, *report_folder.SHAPE],
        "pixel_size_um": {"z": 1.0, "y": 0.5, "x": 0.4},
    }
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    for kind in ("image", "labels"):
        (folder / "keyframes" / f"frame_00000_{kind}.png").rename(
            folder / "keyframes" / f"frame_00000_z0032_{kind}.png"
        )
    page = page_of(folder)
    assert "slice z = 32" in page.text
    assert "One volume of 64 × 300 × 420 voxels (z, y, x)" in page.text


def test_object_rows_become_a_median_over_objects(tmp_path):
    folder = build(tmp_path, n_frames=3, electrochem=False)
    angles = {0: [50.0, 60.0, 70.0], 1: [55.0, math.nan, 65.0], 2: [math.nan]}
    rows = [
        Measurement("contact_angle", a, "deg", class_name="deposit", frame=frame, time_s=30.0 * frame, object_id=i,
                    side="mean", flags=() if a == a else ("touches-border",))
        for frame, values in angles.items() for i, a in enumerate(values)
    ]  # fmt: skip
    to_table(rows).to_csv(folder / "metrics.csv", index=False)
    (one,) = series_of(read_saved(folder).metrics)
    np.testing.assert_array_equal(one.values, [60.0, 60.0, math.nan])
    np.testing.assert_array_equal(one.n, [3, 2, 0])
    assert one.flags == ((), (), ("touches-border",))
    assert "median over objects" in page_of(folder).text


def test_two_methods_of_one_number_are_two_series_and_notes_in_a_method_are_not():
    rows = [
        Measurement("dead_fraction", v, "1", class_name="deposit", frame=frame, method=method)
        for frame in range(3) for v, method in ((0.1, "faces"), (0.2, "full"))
    ]  # fmt: skip
    rows += [Measurement("object_count", i, "1", frame=i, method=f"{i} left out") for i in range(3)]
    found = {(s.metric, s.method): s.values.tolist() for s in series_of(to_table(rows).astype({"method": str}))}
    assert found == {
        ("dead_fraction", "faces"): [0.1] * 3, ("dead_fraction", "full"): [0.2] * 3,
        ("object_count", "2 left out"): [0, 1, 2],
    }  # fmt: skip


def test_absent_classes_are_left_out_unless_their_absence_is_the_result(tmp_path):
    folder = build(tmp_path, n_frames=4)
    table = pd.read_csv(folder / "metrics.csv")
    table = table[table["metric"] != "class_fraction"]
    at = [{"frame": k, "time_s": 30.0 * k} for k in range(4)]
    shares = {"electrolyte": 0.6, "substrate": 0.2, "deposit": 0.2, "pit": 0.0, "dead_lithium": 0.0}
    added = [Measurement("class_fraction", x, "1", class_name=name, **k) for name, x in shares.items() for k in at]
    for name in ("deposit", "deposit+pit", "pit+dead_lithium"):
        added += [Measurement("covered_area", 0.0 if "dead" in name else 5.0, "um2", class_name=name, **k) for k in at]
    added += [Measurement("dead_fraction", 0.0, "1", class_name="dead_lithium", **k) for k in at]
    pd.concat([table, to_table(added)]).to_csv(folder / "metrics.csv", index=False)
    saved = read_saved(folder)
    absent = absent_classes(saved.metrics)
    assert absent == ["pit", "dead_lithium"]
    kept = of_classes_present(saved.metrics, absent).groupby("metric")["class"].unique()
    assert list(kept["class_fraction"]) == ["electrolyte", "substrate", "deposit"]
    assert list(kept["covered_area"]) == ["deposit", "deposit+pit"]
    assert list(kept["dead_fraction"]) == ["dead_lithium"]  # nobody else says that nothing died
    assert "The masks hold no pit or dead lithium." in page_of(folder).text


def test_a_headline_number_that_rose_and_fell_says_how_far(tmp_path):
    """Plated and stripped again: the first frame and the last alone would say that nothing was there."""
    folder = build(tmp_path, n_frames=4)
    table = pd.read_csv(folder / "metrics.csv")
    table = table[table["metric"] != "covered_area"]
    for last, said in ((0.0, True), (41.0, False)):  # 41 +- 2 holds the 42 before
        rows = [
            Measurement("covered_area", x, "um2", x - 2, x + 2, "deposit", k, 30.0 * k)
            for k, x in enumerate((0.0, 17.0, 42.0, last))
        ]
        pd.concat([table, to_table(rows)]).to_csv(folder / "metrics.csv", index=False)
        run = json.loads((folder / "run.json").read_text())
        run["analysis"]["headline"] = ["covered_area"]
        (folder / "run.json").write_text(json.dumps(run))
        assert ("largest 42 µm², frame 2" in page_of(folder).text) == said


def test_a_headline_number_by_another_method_than_the_first_series(tmp_path):
    """The first method gave nothing, and not in the frame that is shown."""
    folder = build(tmp_path, n_frames=4)
    table = pd.read_csv(folder / "metrics.csv")
    table = table[table["metric"] != "porosity"]
    rows = [
        Measurement("porosity", value, "1", class_name="deposit", frame=k, time_s=30.0 * k, method=method)
        for method, value, frames in (("a", math.nan, (0, 1)), ("b", 0.2, (0, 1, 3)))
        for k in frames
    ]
    pd.concat([table, to_table(rows)]).to_csv(folder / "metrics.csv", index=False)
    run = json.loads((folder / "run.json").read_text())
    run["analysis"]["headline"] = ["porosity"]
    (folder / "run.json").write_text(json.dumps(run))
    assert "Porosity deposit 0.2" in page_of(folder).text


def test_a_capacity_below_one_electron_is_rounding(tmp_path):
    folder = build(tmp_path, n_frames=4)
    assert [axis.key for axis in axes_of(read_saved(folder))] == ["time", "capacity", "voltage"]
    table = pd.read_csv(folder / "electrochem.csv")
    table["capacity_mAh"] = 3e-24
    table.to_csv(folder / "electrochem.csv", index=False)
    assert [axis.key for axis in axes_of(read_saved(folder))] == ["time", "voltage"]


def test_legend_labels_hold_what_tells_them_apart():
    long = "interval: mask edge +-1 px, indeterminate metal"
    assert legend_labels([f"faces; 2-D view; {long}", f"full; 2-D view; {long}"]) == ["faces", "full"]
    assert legend_labels(["two-edge rule, exact Poisson interval", "Miles' inversion, 0.25 of the area"]) == [
        "two-edge rule", "Miles' inversion",
    ]  # fmt: skip
    # the head alone would make them one
    same = legend_labels([f"faces; a, {long}", f"faces; b, {long}"])
    assert same == ["faces; a", "faces; b"]
    assert legend_labels(["deposit", "pit, upper; left"]) == ["deposit", "pit, upper; left"]
    assert all(len(label) <= MAX_LABEL for label in legend_labels([long + "x", long + "y"]))


def test_many_lines_are_the_largest_in_the_order_of_the_table(tmp_path):
    """Eight height bands, the middle ones the fullest: the two emptiest are left out, the rest stay in order."""
    folder = build(tmp_path, n_frames=4)
    heights = [f"height {k} to {k + 1} um" for k in range(8)]
    full = [0.1, 0.5, 0.8, 0.9, 0.7, 0.4, 0.05, 0.01]
    rows = [
        Measurement(
            "covered_fraction", x * (1 + k) / 4, "1", class_name="dendrite", frame=k, time_s=30.0 * k, side=side
        )
        for side, x in zip(heights, full, strict=True)
        for k in range(4)
    ]
    table = pd.read_csv(folder / "metrics.csv")
    table = pd.concat([table[table["metric"] != "covered_fraction"], to_table(rows)])
    table.to_csv(folder / "metrics.csv", index=False)
    page = page_of(folder)
    alt = next(i["alt"] for i in page.all("img") if i["alt"].startswith("Covered fraction against time"))
    assert re.findall(r"height (\d) to \d µm", alt) == ["0", "1", "2", "3", "4", "5"]


def test_no_numbers_at_all_is_still_a_report(tmp_path):
    folder = build(tmp_path, n_frames=2, electrochem=False)
    to_table([]).to_csv(folder / "metrics.csv", index=False)
    (folder / "objects.csv").write_text("\n", encoding="utf-8")
    for path in (folder / "keyframes").iterdir():
        path.unlink()
    page = page_of(folder)
    assert "No number was computed." in page.text
    assert "Nothing was flagged" not in page.text


def test_a_damaged_picture_is_left_out_and_named(tmp_path):
    folder = build(tmp_path, n_frames=5, electrochem=False)
    (folder / "keyframes" / "frame_00002_image.png").write_bytes(b"not a picture")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(folder / "keyframes" / "frame_00003_image.png")
    page = page_of(folder)
    assert sum("Masks over the image" in image["alt"] for image in page.all("img")) == 3
    assert "The picture of frame 2 is left out" in page.text
    assert "The picture of frame 3 is left out: its image has (5, 5) pixels" in page.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "holds no run.json"),
        ("run.json", "{", "cannot be read"),
        ("run.json", "[1]", "holds a list"),
        ("metrics.csv", None, "holds no metrics.csv"),
        ("metrics.csv", "metric,value\na,1\n", "no column low"),
        ("metrics.csv", "", "no column metric"),
    ],
)
def test_damaged_folders_are_refused_in_one_sentence(tmp_path, name, content, message):
    folder = build(tmp_path, n_frames=1, electrochem=False)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        write_report(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no result folder"):
        write_report(tmp_path / "absent")


def test_an_old_run_without_optional_entries_is_reported(tmp_path):
    folder = build(tmp_path, n_frames=2, electrochem=False)
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    kept = {key: run[key] for key in ("operandoseg", "input", "schema")}
    (folder / "run.json").write_text(json.dumps(kept), encoding="utf-8")
    (folder / "objects.csv").unlink()
    assert "Object count" in page_of(folder).text
    assert methods(read_saved(folder))


# --- words and pictures -----------------------------------------------------------------------------------------------


def test_every_flag_has_words():
    assert set(FLAG_WORDS) == set(FLAGS)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((5.507, 4.951, 6.072, "um"), "5.51 [4.95, 6.07]\u00a0µm"),
        ((137674, 92813, 189618, "1/cm2"), "1.38 [0.93, 1.90]\u00a0×10⁵\u00a0cm⁻²"),
        ((34, 23.2, 46.9, "1"), "34 [23, 47]"),
        ((0, 0, 3.7, "1"), "0 [0.0, 3.7]"),
        ((3, 3, 3, "1"), "3 [3, 3]"),
        ((0.0, 0.0, 0.4, "1"), "0.00 [0.00, 0.40]"),
        ((281.0,), "281"),
        ((59.94, 55.9, 63.94, "deg"), "59.9 [55.9, 63.9]°"),
        ((0.000745,), "7.45\u00a0×10⁻⁴"),
        ((1.6, math.nan, math.nan, "um"), "1.6\u00a0µm"),
        ((-0.0312, -0.05, -0.011, "um2/s"), "−0.031 [−0.050, −0.011]\u00a0µm²/s"),
        ((12148.0, math.nan, math.nan, "1/cm2"), "12\u2009100\u00a0cm⁻²"),
        ((math.nan, 1.0, 2.0, "um"), "not reported"),
        ((0.0,), "0"),
    ],
)
def test_numbers_are_rounded_as_their_interval_deserves(arguments, expected):
    assert str(number(*arguments)) == expected


@pytest.mark.parametrize(
    ("unit", "factor", "shown"),
    [
        ("um", 1e3, "nm"), ("um2", 1e6, "nm2"), ("um2/s", 1e6, "nm2/s"), ("1/um3", 1e-9, "1/nm3"),
        ("1/cm2", 1, "1/cm2"), ("deg", 1, "deg"), ("px", 1, "px"),
    ],
)  # fmt: skip
def test_lengths_in_nanometres(unit, factor, shown):
    assert in_length_unit(unit, "nm") == (pytest.approx(factor), shown)
    assert in_length_unit(unit, "um") == (1.0, unit)


def test_converting_the_table_leaves_counts_alone():
    table = to_table([Measurement("valid_area", 2.0, "um2", 1.0, 3.0), Measurement("object_count", 2.0, "1")])
    converted = in_report_units(table, "nm")
    assert converted["value"].tolist() == [2e6, 2.0]
    assert converted["unit"].tolist() == ["nm2", "1"]


def test_units_as_printed():
    assert [unit_text(u) for u in ("1", "um2/s", "1/cm2/s", "deg", "mA/cm2", "1/px2")] == [
        "", "µm²/s", "cm⁻² s⁻¹", "°", "mA/cm²", "px⁻²"
    ]  # fmt: skip


def test_durations():
    assert [spaced(duration(s)) for s in (0.05, 30, 570, 18000)] == ["50 ms", "30 s", "9.5 min", "5 h"]


@pytest.mark.parametrize(("length", "expected"), [(84, 50), (0.21, 0.2), (10, 10), (9.99, 5), (2e-3, 2e-3)])
def test_round_lengths(length, expected):
    assert round_length(length) == pytest.approx(expected)


def test_scale_bar_is_its_length_on_the_picture(tmp_path):
    saved = read_saved(build(tmp_path, n_frames=1, electrochem=False))
    bar = scale_bar(saved)
    # 420 px of 0.4 um are 168 um: a fifth is 33.6 um, the round length 20 um
    assert bar.label == "20\u00a0µm"
    assert bar.percent == pytest.approx(100 * 20 / 168)


def test_painting_tints_outlines_and_leaves_the_background():
    schema = load_schema("lithium")
    labels = np.ones((20, 20), np.uint8)
    labels[5:15, 5:15] = 3
    labels[0, :] = 0
    grey = np.full((20, 20), 100, np.uint8)
    painted = paint(grey, labels, schema, plain_class=1, fill=0.5)
    colour = np.array(schema.by_name("deposit").rgb)
    np.testing.assert_array_equal(painted[5, 5], colour)
    np.testing.assert_allclose(painted[10, 10], (colour + 100) / 2, atol=0.5)  # rounding to bytes
    np.testing.assert_array_equal(painted[3, 3], [100] * 3)
    assert (painted[0, ::8] == 150).all()


@pytest.mark.parametrize(("covered", "plain"), [(4, "substrate"), (16, "substrate"), (20, "deposit")])
def test_metal_is_tinted_however_much_it_covers_of_its_substrate(covered, plain):
    schema = load_schema("lithium")
    labels = np.full((20, 20), schema.index("substrate"), np.uint8)
    labels[:covered] = schema.index("deposit")
    assert background_class([(None, labels, None)], schema) == schema.index(plain)


def test_curve_colours_hold_three_to_one_against_white():
    def contrast(colour):
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)

    colours = [*PALETTE, *(contrasting(c.color) for c in load_schema("lithium").classes)]
    assert min(contrast(c) for c in colours) >= 2.97  # bytes round the last step
