"""Small parts the widgets are built of, and messages to the user."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMainWindow,
    QMessageBox,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_plugin.unnamed_axes import CHOICES, question, remember_axes, sidecar_of
from seg.errors import SegError


def broken_qt() -> str:
    """What is wrong with the Qt library in use, and what to do; empty where nothing is known."""
    from qtpy import API_NAME, PYSIDE_VERSION

    if API_NAME == "PySide6" and PYSIDE_VERSION == "6.12.0" and sys.version_info < (3, 12):
        # Each signal and each turn of its loop gives back a reference to True or None that it never took; later
        # versions of Python do not count these.
        return (
            "PySide6 6.12.0 on Python before 3.12 ends the program after some ten thousand events: "
            "pip install 'PySide6!=6.12.0'. Strokes are journalled; nothing is lost."
        )
    return ""


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """A slot whose errors become a message for the user instead of a traceback."""

    def slot(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (SegError, OSError) as error:
            show_error(str(error))
            return None

    return slot


def ask_axes(name: str, path: Path | None = None, *, length: int | None = None) -> str | None:
    """Ask what the dimensions of an image are, and remember it beside the file `path`; None: the user does not know."""
    windows = [one for one in QApplication.topLevelWidgets() if isinstance(one, QMainWindow) and one.isVisible()]
    box = QMessageBox(windows[0] if windows else None)
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle("Time or depth?")
    box.setText(question(name, length))
    buttons = {}
    for axes, text in CHOICES.items():
        if (length is None) or len(axes) == 3:
            buttons[axes] = box.addButton(text, QMessageBox.ButtonRole.AcceptRole)
    box.addButton(QMessageBox.StandardButton.Cancel)
    keep = QCheckBox()
    if path is not None:
        keep.setText(f"Remember it in {sidecar_of(path).name}, for the command line too")
        keep.setChecked(True)
        box.setCheckBox(keep)
    box.exec()
    chosen = next((axes for axes, made in buttons.items() if made is box.clickedButton()), None)
    if chosen is not None and path is not None and keep.isChecked():
        try:
            remember_axes(path, chosen)
        except OSError as error:
            show_warning(f"The axes of {path.name} could not be written beside it: {error}")
    return chosen


def axes_list() -> QComboBox:
    """A list of axes for images that do not say what theirs are; `chosen_axes` reads it."""
    made = QComboBox()
    made.addItems(["as the file or layer says", "tyx: first axis is time", "zyx: first axis is depth"])
    made.setToolTip("Of images that do not say; where nothing is chosen here you are asked")
    return made


def chosen_axes(box: QComboBox) -> str | None:
    """What is chosen in `axes_list`; None: as the file says."""
    chosen = box.currentText().split(":")[0]
    return None if chosen.startswith("as") else chosen


def say(text: str) -> None:
    """A message at the foot of the viewer."""
    show_info(text)


def warn(text: str) -> None:
    """A message that stays longer."""
    show_warning(text)


def section(title: str) -> tuple[QWidget, QVBoxLayout]:
    """A part of a widget that folds, and where its content goes."""
    part, inside, head = QWidget(), QWidget(), QToolButton()
    head.setText(title)
    head.setCheckable(True)
    head.setChecked(True)
    head.setArrowType(Qt.ArrowType.DownArrow)
    head.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    head.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    font = head.font()
    font.setBold(True)
    head.setFont(font)

    def fold(shown: bool) -> None:
        inside.setVisible(shown)
        head.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)

    head.toggled.connect(fold)
    outer = QVBoxLayout(part)
    outer.setContentsMargins(0, 0, 0, 0)
    outer.setSpacing(2)
    outer.addWidget(head)
    outer.addWidget(inside)
    layout = QVBoxLayout(inside)
    layout.setContentsMargins(4, 2, 4, 6)
    layout.setSpacing(5)
    return part, layout


def row(*widgets: QWidget | str, stretch: int | None = None) -> QHBoxLayout:
    """Widgets side by side."""
    layout = QHBoxLayout()
    layout.setSpacing(4)
    for n, widget in enumerate(widgets):
        layout.addWidget(QLabel(widget) if isinstance(widget, str) else widget, 1 if n == stretch else 0)
    return layout


def choose_text(box: QComboBox, text: str) -> None:
    """Choose an entry of a list, added where it is not there."""
    if box.findText(text) < 0:
        box.addItem(text)
    box.setCurrentText(text)


def form() -> QFormLayout:
    """Names on the left, fields on the right."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
    return layout


class PathField(QWidget):
    """A line for a path with a button to look for it."""

    def __init__(self, kind: str, placeholder: str = "") -> None:
        super().__init__()
        self.edit = QLineEdit()
        self.edit.setPlaceholderText(placeholder)
        look = QToolButton()
        look.setText("...")
        look.clicked.connect(self._look)
        self._kind = kind
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.edit, 1)
        layout.addWidget(look)

    def _look(self) -> None:
        if self._kind == "folder":
            found = QFileDialog.getExistingDirectory(self, "Choose a folder")
        else:
            found, _ = QFileDialog.getOpenFileName(self, "Choose a file")
        if found:
            self.edit.setText(found)

    @property
    def path(self) -> Path | None:
        """What is written there; None for nothing."""
        text = self.edit.text().strip()
        return Path(text).expanduser() if text else None


class Column(QScrollArea):
    """Parts below each other, scrolled where they are too many and never cut off at the side."""

    def __init__(self, inside: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setWidget(inside)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Keep room for the parts and the scroll bar beside them, whenever the parts change."""
        if event.type() == QEvent.Type.LayoutRequest and self.widget() is not None:
            bar = self.verticalScrollBar().sizeHint().width()
            self.setMinimumWidth(self.widget().minimumSizeHint().width() + bar)
        return super().eventFilter(watched, event)


class Picture(QLabel):
    """A picture from a file, as wide as its place; hidden while there is none."""

    def __init__(self) -> None:
        super().__init__()
        self._pixmap, self._read = QPixmap(), None
        self.setMinimumSize(1, 1)
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.hide()

    def show_file(self, path: Path) -> bool:
        """Show a file where it is there and newer than what is shown; returns whether it was."""
        try:
            read = (path, path.stat().st_mtime_ns)
        except OSError:
            return False
        pixmap = QPixmap(str(path)) if read != self._read else QPixmap()
        if pixmap.isNull():
            return False
        self._pixmap, self._read = pixmap, read
        self.show()
        self._fit()
        return True

    def clear(self) -> None:
        """Show nothing."""
        self._pixmap, self._read = QPixmap(), None
        self.hide()

    def resizeEvent(self, event: Any) -> None:
        """Keep the picture as wide as its place."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        if not self._pixmap.isNull():
            aspect, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
            self.setPixmap(self._pixmap.scaled(self.size(), aspect, smooth))


def button(text: str, slot: Callable[[], Any], tip: str = "") -> QPushButton:
    """A button that reports what goes wrong."""
    made = QPushButton(text)
    made.setToolTip(tip)
    made.clicked.connect(lambda: told(slot)())
    return made


def fill_table(table: QTableWidget, texts: pd.DataFrame) -> None:
    """Show texts, a column as wide as what is in it."""
    table.setColumnCount(len(texts.columns))
    table.setHorizontalHeaderLabels([str(name) for name in texts.columns])
    table.setRowCount(len(texts))
    for column, name in enumerate(texts.columns):
        for row, text in enumerate(texts[name]):
            item = QTableWidgetItem(text)
            item.setToolTip(text)
            table.setItem(row, column, item)
    table.resizeColumnsToContents()


def note(text: str = "") -> QLabel:
    """A line of small text that wraps."""
    made = QLabel(text)
    made.setWordWrap(True)
    made.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return made
