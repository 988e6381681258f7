"""The Measure widget: curves with intervals beside the images they come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from qtpy.compat import isalive
from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QSplitter, QTableWidget, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider

from napari_plugin import layers, overlays, qt, run_job, viewing
from napari_plugin.curve_plot import CurvePlot
from napari_plugin.curves import Results, number_texts, object_texts
from napari_plugin.work import ProgressLine, Work
from seg.electrochem import read_cycler
from seg.errors import UsageError
from seg.io import read_labels
from seg.io.results import write_table
from seg.labels import load_schema
from seg.report import words
from seg.resources import config_names
from seg.segmentation import Segmentation

if TYPE_CHECKING:
    import napari

OBJECT_ON_SCREEN_PX = 60
VALUE_PX = 130  # why a number is not reported is longer: it is cut off, and whole in the tip
SELECTED = "#f0e442"


class MeasureWidget(QWidget):
    """Look at a result: any metric against time, capacity or voltage; points, objects and rows are linked."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.results: Results | None = None
        self.segmentation: Segmentation | None = None
        self.instances: Any = None
        self._cycler: pd.DataFrame | None = None
        self._plain: Results | None = None
        self._listed: tuple[Path, int] | None = None
        self._unmarked: dict[str, Any] = {}
        self._quiet = False
        self._build()
        self._warming = Work(lambda _: viewing.warm_up(), self).start()
        self.viewer.dims.events.current_step.connect(self._frame_changed)
        self.viewer.mouse_drag_callbacks.append(self._clicked)

    def _build(self) -> None:
        self.plot = CurvePlot()
        self.plot.frame_clicked.connect(self.go_to_frame)
        self.metric, self.against, self.analysis = QComboBox(), QComboBox(), QComboBox()
        self.against.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.analysis.addItems(config_names("analysis"))
        self.analysis.setCurrentText("optical-plan")
        self.metric.currentTextChanged.connect(lambda _: self._draw())
        self.against.currentTextChanged.connect(lambda _: self._draw())
        self.offset = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.offset.setRange(-600, 600)
        self.offset.setDecimals(1)
        self.offset.valueChanged.connect(self._slide)
        self.offset.setEnabled(False)
        self.numbers = QTableWidget()
        self.numbers.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.numbers.verticalHeader().hide()
        self.table = QTableWidget()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.table.verticalHeader().hide()
        self.table.cellClicked.connect(lambda row, _: qt.told(self.centre_on_row)(row))
        self.heading = qt.note("Open a result folder, or measure a labels layer.")
        self.line = ProgressLine()
        self.objects_title = QLabel("objects")

        upper, lower = QWidget(), QWidget()
        column = QVBoxLayout(upper)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(qt.row(
            qt.button("Open result ...", self._ask_folder),
            qt.button("Measure labels layer", self.measure_layer, "The labels layer that is selected"),
            self.analysis,
        ))  # fmt: skip
        column.addWidget(self.line)
        column.addWidget(self.heading)
        self.over_time = QWidget()
        inner = QVBoxLayout(self.over_time)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addLayout(qt.row(self.metric, "against", self.against, stretch=0))
        inner.addWidget(self.plot, 1)
        inner.addLayout(
            qt.row(qt.button("Cycler file ...", self._ask_cycler), "its zero at / s", self.offset, stretch=2)
        )
        column.addWidget(self.over_time, 1)
        column.addWidget(self.numbers, 1)
        self.numbers.hide()
        below = QVBoxLayout(lower)
        below.setContentsMargins(0, 0, 0, 0)
        below.addWidget(self.objects_title)
        below.addWidget(self.table, 1)
        below.addLayout(qt.row(
            qt.button("Contact angles", self.show_contacts, "Baseline, fitted curve and tangents of this frame"),
            qt.button("Skeleton", self.show_skeleton, "Branches of this frame"),
            qt.button("Export CSV ...", self._ask_export), qt.button("Report", self.open_report),
        ))  # fmt: skip
        split = QSplitter(Qt.Orientation.Vertical)
        split.addWidget(upper)
        split.addWidget(lower)
        split.setStretchFactor(0, 3)
        split.setStretchFactor(1, 2)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.addWidget(split)
        self.setMinimumWidth(455)

    # --- opening ----------------------------------------------------------------------------------------------------

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Result folder of one input")
        if folder:
            self.open_result(Path(folder))

    def open_result(self, folder: Path) -> None:
        """Show the numbers of a result folder; its layers are added where the viewer does not have them."""
        self.results = self._plain = Results(folder)
        self.segmentation = read_labels(folder / "labels.ome.tif")
        names = {layer.name for layer in self.viewer.layers}
        viewing.add_layers(self.viewer, [one for one in layers.result_layers(folder) if one[1]["name"] not in names])
        self.instances = next((one for one in self.viewer.layers if one.name == f"{folder.name} objects"), None)
        self._quiet = True
        self.metric.clear()
        self.metric.addItems(self.results.metric_names())
        self._fill_axes()
        self._quiet = False
        by = f" by {self.results.analysis}" if self.results.analysis else ""
        self.heading.setText(f"{folder.name}: {len(self.results.metrics)} numbers{by}")
        self.heading.setToolTip(str(folder))
        if self.analysis.findText(self.results.analysis) >= 0:
            self.analysis.setCurrentText(self.results.analysis)
        self._show_numbers()
        self._draw()
        self._fill_objects()

    def _show_numbers(self) -> None:
        """A list of numbers instead of the plot, where nothing goes over more than one frame."""
        single = not self.results.metric_names()
        self.over_time.setVisible(not single)
        self.numbers.setVisible(single)
        if single:
            qt.fill_table(self.numbers, number_texts(self.results.numbers(), self.results.length_unit))
            self.numbers.setColumnWidth(1, min(self.numbers.columnWidth(1), VALUE_PX))

    def _fill_axes(self) -> None:
        assert self.results is not None
        before, quiet = self.against.currentText(), self._quiet
        self._quiet = True
        self.against.clear()
        self.against.addItems(self.results.axes())
        if self.against.findText(before) >= 0:
            self.against.setCurrentText(before)
        self._quiet = quiet

    def measure_layer(self) -> None:
        """Measure the selected labels layer by the engine, in a thread."""
        chosen = [one for one in self.viewer.layers.selection if type(one).__name__ == "Labels"]
        if not chosen:
            raise UsageError("Select a labels layer to measure.")
        layer = chosen[0]
        axes = viewing.asked_axes(layer)
        found = layers.segmentation_of_layer(layer.data, viewing.layer_state(layer), load_schema(), axes=axes)
        source = viewing.path_of(layer)
        out = Path.cwd() / "results"
        if source is not None:
            out = (source.parent.parent if source.parent.name == "labels" else source.parent) / "results"
            if layer.name in ("labels", "prediction"):  # of the Label widget: called alike for every image
                found = replace(found, stack=replace(found.stack, name=f"{source.name}_{layer.name}"))
        analysis = self.analysis.currentText()

        def measure(work: Work) -> Any:
            path = run_job.write_layer_labels(found, out / "labels")
            job = run_job.make_job("measure", [path], analysis=analysis, out=out)
            return work.compute(run_job.execute, job)

        work = Work(measure, self)
        work.returned.connect(self._measured)
        work.failed.connect(qt.show_error)
        self.line.follow(work)
        work.start()

    def _measured(self, results: list[Any]) -> None:
        if results[0].error:
            qt.show_error(results[0].error)
        else:
            self.open_result(results[0].folder)

    def _need(self) -> Results:
        if self.results is None:
            raise UsageError("No result is open; press `Open result ...`.")
        return self.results

    # --- the plot ---------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        if self._quiet or self.results is None or not self.metric.currentText() or not self.against.currentText():
            return
        self.plot.show_metric(self.results, self.metric.currentText(), self.against.currentText(), self._frame())

    # --- the viewer -------------------------------------------------------------------------------------------------

    def _axis_of(self, letter: str) -> int | None:
        if self.segmentation is None or letter not in self.segmentation.stack.axes:
            return None
        axes = self.segmentation.stack.axes
        return self.viewer.dims.ndim - len(axes) + axes.index(letter)

    def _frame(self) -> int:
        axis = self._axis_of("t")
        if axis is None:
            return 0
        shown, stack = layers.geometry(self.segmentation.stack), self.segmentation.stack
        frame = (self.viewer.dims.point[axis] - shown["translate"][0]) / shown["scale"][0]
        return min(max(round(float(frame)), 0), stack.n_frames - 1)

    def go_to_frame(self, frame: int) -> None:
        """Show a frame."""
        axis = self._axis_of("t")
        if axis is not None:
            shown = layers.geometry(self.segmentation.stack)
            self.viewer.dims.set_point(axis, shown["translate"][0] + frame * shown["scale"][0])

    def _frame_changed(self, event: Any = None) -> None:
        if not isalive(self) or self.results is None:
            return
        self.plot.mark(self._frame())
        self._fill_objects()

    def _fill_objects(self) -> None:
        """The objects of the frame, in the table and in the features of the objects layer."""
        if self.results is None or self.results.objects is None:
            return
        frame = self._frame()
        if self._listed == (self.results.folder, frame):
            return
        self._listed = (self.results.folder, frame)
        self._unmark()  # ids are those of a frame
        found = self.results.objects[self.results.objects["frame"] == frame].reset_index(drop=True)
        self._objects = found
        self.objects_title.setText(f"{words.count(len(found), 'object')} in frame {frame}")
        qt.fill_table(self.table, object_texts(found, self.results.length_unit))
        if self.instances is not None:
            self.instances.features = found.rename(columns={"object_id": "index"})

    def centre_on_row(self, row: int) -> None:
        """Move the view to the object of a row, and mark it."""
        if self.segmentation is None:
            return
        stack, record = self.segmentation.stack, self._objects.iloc[row]
        centre = layers.centre_of(record, stack)
        if stack.spatial_axes == "zyx":
            self.viewer.dims.set_point(self._axis_of("z"), centre[stack.axes.index("z")])
        camera = viewing.camera_of(self.viewer)
        camera.center = (0.0, *centre[-2:])
        sizes = [record[c] for c in record.index if c.startswith("equivalent_diameter")]
        if sizes and sizes[0] > 0:  # at least so near that the object is seen
            camera.zoom = max(camera.zoom, OBJECT_ON_SCREEN_PX / float(sizes[0]))
        self._mark_object(int(record["object_id"]))

    def _mark_object(self, object_id: int) -> None:
        """Outline an object; what the layer looked like before comes back with `_unmark`."""
        layer = self.instances
        if layer is None or layer not in self.viewer.layers:
            return
        if not self._unmarked:
            self._unmarked = {name: getattr(layer, name) for name in ("colormap", "contour", "opacity", "visible")}
        layer.colormap = {None: "transparent", 0: "transparent", object_id: SELECTED}
        layer.contour, layer.opacity, layer.visible = 2, 1.0, True
        layer.selected_label = object_id

    def _unmark(self) -> None:
        self.table.clearSelection()
        if self.instances is not None and self._unmarked:
            for name, value in self._unmarked.items():
                setattr(self.instances, name, value)
        self._unmarked = {}

    def _clicked(self, viewer: Any, event: Any) -> None:
        if isalive(self) and self.instances is not None and self.instances in self.viewer.layers:
            self.select_at(event.position)

    def select_at(self, position: Any) -> None:
        """Select the row of the object at a place of the viewer."""
        at = tuple(round(float(n)) for n in self.instances.world_to_data(position))
        if not all(0 <= n < size for n, size in zip(at, self.instances.data.shape, strict=True)):
            return
        object_id = int(self.instances.data[at])
        rows = np.flatnonzero(self._objects["object_id"].to_numpy() == object_id) if object_id else []
        if len(rows):
            self.table.selectRow(int(rows[0]))
            self._mark_object(object_id)
        else:
            self._unmark()

    # --- cycler -----------------------------------------------------------------------------------------------------

    def _ask_cycler(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Cycler file")
        if name:
            self.load_cycler(Path(name))

    def load_cycler(self, path: Path, offset_s: float = 0.0) -> None:
        """Put a cycler file on the clock of the images; the slider moves it."""
        results = self._need()
        self._cycler = read_cycler(path)
        span = (
            float(np.ptp(self._cycler["time_s"])) + float(np.ptp(results.frame_times_s))
            if len(results.frame_times_s)
            else 600
        )
        self.offset.setRange(-span, span)
        self.offset.setEnabled(True)
        self.offset.setValue(offset_s)
        self._slide(offset_s)
        if self.against.findText("capacity_mAh") >= 0:
            self.against.setCurrentText("capacity_mAh")

    def _slide(self, offset_s: float) -> None:
        if self._cycler is None or self._plain is None:
            return
        self.results = self._plain.with_cycler(self._cycler, float(offset_s))
        self._fill_axes()
        self._draw()

    # --- overlays and files -----------------------------------------------------------------------------------------

    def show_contacts(self) -> None:
        """Draw the contact angles of the frame on show."""
        results, frame = self._need(), self._frame()
        if self.instances is None:
            raise UsageError("This result has no objects, so no contact angles either.")
        ids = self.instances.data[frame] if "t" in self.segmentation.stack.axes else self.instances.data
        strokes = overlays.contact_strokes(self.segmentation, np.asarray(ids), results.metrics, frame)
        found = overlays.contact_layer(strokes, self.segmentation.stack, frame)
        if found is None:
            raise UsageError(f"No contact angle is reported for frame {frame}.")
        self._replace(found)

    def show_skeleton(self) -> None:
        """Draw the skeleton of dendrites (of deposits, where there are none) in the frame on show; in a thread."""
        self._need()
        frame, segmentation = self._frame(), self.segmentation

        def draw(_: Work) -> layers.LayerData:
            for name in ("dendrite", "deposit"):
                found = overlays.skeleton_layer(segmentation, frame, [name])
                if found is not None:
                    return found
            raise UsageError(f"Frame {frame} of {segmentation.stack.name!r} holds neither dendrites nor deposits.")

        work = Work(draw, self)
        work.returned.connect(self._replace)
        work.failed.connect(qt.show_error)
        self.line.follow(work)
        work.start()

    def _replace(self, found: layers.LayerData) -> None:
        name = found[1]["name"]
        for old in [one for one in self.viewer.layers if one.name == name]:
            self.viewer.layers.remove(old)
        viewing.add_layers(self.viewer, [found])

    def _ask_export(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Export the curve", f"{self.metric.currentText() or 'numbers'}.csv")
        if name:
            self.export(Path(name))

    def export(self, path: Path) -> Path:
        """Save what the plot shows."""
        results, metric = self._need(), self.metric.currentText()
        return write_table(results.table(metric, self.against.currentText()) if metric else results.numbers(), path)

    def open_report(self) -> None:
        """Open the report of the result in the browser."""
        report = self._need().folder / "report.html"
        if not report.is_file():
            raise UsageError(f"{self._need().folder.name} has no report.html; run the analysis again.")
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(report)))
