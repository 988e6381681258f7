"""What the Label widget looks like: its parts, filled from settings and classes; it says what was pressed, no more."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_plugin import qt
from napari_plugin.files_queue import FAILED, LABELLED, NEW, STARTED, FilesQueue
from napari_plugin.metric_choice import MetricChoice
from napari_plugin.settings import Settings
from napari_plugin.work import ProgressLine
from seg.labels import LabelSchema
from seg.modality import MODALITIES
from seg.resources import config_names

FOREST = "forest from my strokes"
AUTO = "auto: shipped network"
OTHER = "other network ..."
MARKS = {NEW: "○", STARTED: "◐", LABELLED: "●", FAILED: "✕"}
FILES_SHOWN = 5  # rows of the list of files; more are scrolled
CLASS_STYLE = """
QToolButton { border: 1px solid transparent; border-radius: 3px; padding: 3px; text-align: left; }
QToolButton:hover { background: #414851; }
QToolButton:checked { background: #4a5563; border: 1px solid #e6e6e6; font-weight: bold; }
"""


class LabelPanel(QWidget):
    """Fields, lists and buttons of the Label widget.

    Signals
    -------
    pressed : (str,)
        Name of what is wanted: ``save``, ``accept_frame``, ...
    class_pressed, file_pressed : (int,)
        Label value; position in the list of files.
    """

    pressed = Signal(str)
    class_pressed = Signal(int)
    file_pressed = Signal(int)

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setSpacing(2)
        for part in (
            self._build_image(settings),
            self._build_classes(),
            self._build_predict(settings),
            self._build_edit(),
            self._build_next(),
        ):
            column.addWidget(part)
        column.addStretch(1)
        self.status = qt.note("Open an image, or label the one that is selected.")
        self.line = ProgressLine()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.addWidget(qt.Column(inside), 1)
        outer.addWidget(self.line)
        outer.addWidget(self.status)

    def _button(self, text: str, name: str, tip: str = "") -> QPushButton:
        return qt.button(text, partial(self.pressed.emit, name), tip)

    def _build_image(self, settings: Settings) -> QWidget:
        part, layout = qt.section("Image")
        self.axes = qt.axes_list()
        self.schema_name, self.modality = QComboBox(), QComboBox()
        self.schema_name.addItems(config_names("labels"))
        qt.choose_text(self.schema_name, settings.classes)
        self.modality.addItems(list(MODALITIES))
        self.modality.setCurrentText(settings.instrument)
        fields = qt.form()
        fields.addRow("classes", self.schema_name)
        fields.addRow("instrument", self.modality)
        fields.addRow("axes", self.axes)
        self.files = QListWidget()
        self.files.itemActivated.connect(lambda item: self.file_pressed.emit(self.files.row(item)))
        self.files.hide()
        layout.addLayout(fields)
        layout.addLayout(qt.row(
            self._button("Label selected layer", "label_selected", "Label the image layer that is selected"),
            self._button("Open files ...", "ask_files", "Label many files, one after the other"),
        ))  # fmt: skip
        layout.addWidget(self.files)
        layout.addLayout(qt.row(
            self._button("Save", "save", "Write the label file and read it back"),
            self._button("Save, next image", "next_image", "Go to the next image without saved labels"),
        ))  # fmt: skip
        return part

    def _build_classes(self) -> QWidget:
        part, self._classes_layout = qt.section("Class")
        self._class_buttons: dict[int, QToolButton] = {}
        self._class_grid: QWidget = qt.note("They appear with the image.")
        self._classes_layout.addWidget(self._class_grid)
        return part

    def _build_predict(self, settings: Settings) -> QWidget:
        part, layout = qt.section("Predict and accept")
        self.model = QComboBox()
        self.model.addItems([FOREST, AUTO, OTHER])
        if settings.network != "auto":
            self.model.insertItem(1, settings.network)
        self.model.activated.connect(self._model_chosen)
        self.live = QCheckBox("after every stroke")
        self.live.setChecked(settings.predict_after_stroke)
        self.overwrite = QCheckBox("replace what is labelled")
        layout.addLayout(qt.row(self.model, self._button("Predict", "predict", "Shift-P"), stretch=0))
        layout.addWidget(self.live)
        layout.addLayout(qt.row(
            "accept",
            self._button("frame", "accept_frame", "Everything predicted in this frame (Shift-A)"),
            self._button("class", "accept_class", "The chosen class in this frame (Shift-C)"),
            self._button("region", "click_accept", "Click a predicted region (Shift-R: under cursor)"),
        ))  # fmt: skip
        layout.addWidget(self.overwrite)
        return part

    def _build_edit(self) -> QWidget:
        part, layout = qt.section("Correct the chosen class")
        self.size_px = QSpinBox()
        self.size_px.setRange(1, 1_000_000)
        self.size_px.setValue(20)
        self.size_px.setSuffix(" px")
        self.size_px.setToolTip("Largest hole to fill, largest speck to remove")
        layout.addLayout(qt.row(
            self._button("Fill holes", "fill_holes"), self._button("Remove specks", "remove_specks"), "up to",
            self.size_px, stretch=3,
        ))  # fmt: skip
        layout.addLayout(qt.row(
            self._button("Smooth", "smooth"), self._button("Split", "click_split", "Click a region"),
            self._button("Merge", "click_merge", "Click one region, then another"),
        ))  # fmt: skip
        layout.addLayout(qt.row(
            self._button("Copy to next", "copy_to_next", "These labels for the next frame"),
            self._button("Interpolate", "interpolate", "Fill the frames between the labelled ones around this one"),
        ))  # fmt: skip
        return part

    def _build_next(self) -> QWidget:
        part, layout = qt.section("Label this next")
        choice = MetricChoice()
        self.analysis, self.metric = choice.analysis, choice.metric
        choice.follow(self.modality.currentText())
        self.modality.currentTextChanged.connect(lambda name: choice.follow(name))
        fields = qt.form()
        fields.addRow("analysis", self.analysis)
        fields.addRow("number wanted", self.metric)
        layout.addLayout(fields)
        layout.addWidget(self._button("Which frame?", "suggest", "By doubt, novelty and effect on that number"))
        self.advice = qt.note("")
        layout.addWidget(self.advice)
        return part

    # --- filling ----------------------------------------------------------------------------------------------------

    def fill_classes(self, schema: LabelSchema) -> None:
        """A button for every class, with its colour and its number key."""
        fresh = QWidget()
        fresh.setStyleSheet(CLASS_STYLE)
        grid = QGridLayout(fresh)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(3)
        self._class_buttons = {}
        for n, each in enumerate(schema.classes):
            made = QToolButton()
            made.setCheckable(True)
            made.setAutoExclusive(True)
            made.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
            picture = QPixmap(14, 14)
            picture.fill(QColor(each.color))
            made.setIcon(QIcon(picture))
            made.setIconSize(QSize(14, 14))
            key = f"{each.index % 10}  " if each.index <= 10 else ""
            made.setText(f" {key}{each.name.replace('_', ' ')}")
            made.setToolTip(each.description)
            made.setMinimumWidth(150)
            made.clicked.connect(partial(self.class_pressed.emit, each.index))
            grid.addWidget(made, n // 2, n % 2)
            self._class_buttons[each.index] = made
        self._classes_layout.replaceWidget(self._class_grid, fresh)
        self._class_grid.deleteLater()
        self._class_grid = fresh

    def show_files(self, queue: FilesQueue | None) -> None:
        """The images of the queue with their status; nothing without a queue."""
        self.files.setVisible(queue is not None)
        if queue is None:
            return
        self.files.clear()
        for item in queue.items():
            shown = QListWidgetItem(f"{MARKS[item.status]}  {item.image.name}   {item.status}")
            shown.setToolTip(f"{item.image}\n{item.note}")
            self.files.addItem(shown)
        if queue.position is not None:
            self.files.setCurrentRow(queue.position)
        rows = min(self.files.count(), FILES_SHOWN)
        self.files.setFixedHeight(rows * self.files.sizeHintForRow(0) + 2 * self.files.frameWidth())

    def _model_chosen(self, index: int) -> None:
        if self.model.itemText(index) == OTHER:
            folder = QFileDialog.getExistingDirectory(self, "Folder of a model")
            if folder:
                self.model.insertItem(index, folder)
            self.model.setCurrentIndex(index if folder else 0)
