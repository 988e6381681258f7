"""What the widgets share: work in threads with progress and cancel, messages, sections."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_plugin import layers
from napari_plugin.engine import ENGINE, Stopped
from seg.errors import SegError, UsageError
from seg.stack import Stack

if TYPE_CHECKING:
    import napari


class Cancelled(BaseException):
    """The user stopped the work; no `Exception`, so that nothing takes it for a failed input."""


class Work(QObject):
    """A function in a thread, with progress for whoever shows it and a wish to stop that the function grants.

    Signals
    -------
    progressed : (str, int, int)
        What is done, items done, items in all (0: unknown).
    partial : (object,)
        What is finished before the rest; sent by the function.
    returned : (object,)
    failed : (str,)
        One sentence.
    cancelled, ended : ()
    """

    progressed = Signal(str, int, int)
    partial = Signal(object)
    returned = Signal(object)
    failed = Signal(str)
    cancelled = Signal()
    ended = Signal()

    def __init__(self, function: Callable[[Work], Any], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._stop = self._in_engine = False
        self._worker = create_worker(self._run, function, _start_thread=False)
        self._worker.returned.connect(self._finish)
        self._worker.errored.connect(self._fail)

    def start(self) -> Work:
        """Begin."""
        self._worker.start()
        return self

    @property
    def stopping(self) -> bool:
        """Whether somebody asked it to stop, or napari is closing."""
        return self._stop or bool(self._worker.abort_requested)

    def supersede(self) -> None:
        """Ask to stop between two items; what the computing process does is waited for, so that it stays warm."""
        self._stop = True

    def cancel(self) -> None:
        """Ask to stop; granted between two items, and at once by the computing process."""
        self._stop = True
        if self._in_engine:
            ENGINE.stop()

    def compute(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function in the computing process, with its progress; called in the thread."""
        if self._stop:
            raise Cancelled
        self._in_engine = True
        try:
            return ENGINE.call(function, *args, report=self.progressed.emit)
        except Stopped:
            raise Cancelled from None
        finally:
            self._in_engine = False

    def progress(self, iterable: Iterable[Any], *, total: int | None = None, desc: str = "") -> Iterator[Any]:
        """A `seg.progress.Progress`: called in the thread, seen in the main one."""
        count = total if total is not None else len(iterable) if hasattr(iterable, "__len__") else 0
        for done, item in enumerate(iterable):
            if self.stopping:
                raise Cancelled
            self.progressed.emit(desc, done, count)
            yield item
        self.progressed.emit(desc, count, count)

    def _run(self, function: Callable[[Work], Any]) -> tuple[str, Any]:
        try:
            return "returned", function(self)
        except Cancelled:
            return "cancelled", None
        except (SegError, OSError) as error:
            return "failed", str(error)

    def _finish(self, result: tuple[str, Any]) -> None:
        kind, value = result
        if kind == "cancelled":
            self.cancelled.emit()
        else:
            {"returned": self.returned, "failed": self.failed}[kind].emit(value)
        self.ended.emit()

    def _fail(self, error: BaseException) -> None:
        self.failed.emit(f"{type(error).__name__}: {error} (a bug; the terminal has the details)")
        self.ended.emit()


class ProgressLine(QWidget):
    """A bar with the remaining time and a button to cancel; hidden while nothing runs."""

    def __init__(self) -> None:
        super().__init__()
        self.bar, self.text, self.button = QProgressBar(), QLabel(), QPushButton("Cancel")
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.text.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(self.text, 1)
        line.addWidget(self.button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.bar)
        layout.addLayout(line)
        self._began: dict[str, tuple[float, int]] = {}
        self.hide()

    def follow(self, work: Work) -> None:
        """Show the progress of `work` until it ends."""
        self._began.clear()
        self.bar.setRange(0, 0)
        self.text.setText("Starting ...")
        self.show()
        self.button.setEnabled(True)
        self.button.clicked.connect(work.cancel)
        self.button.clicked.connect(lambda: (self.button.setEnabled(False), self.text.setText("Stopping ...")))
        work.progressed.connect(self.set)
        work.ended.connect(self.hide)

    def set(self, what: str, done: int, total: int) -> None:
        """Items done, and the time to go at the pace so far."""
        now = time.monotonic()
        began, first = self._began.setdefault(what, (now, done))
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        pace = (now - began) / (done - first) if done > first else None
        left = "" if pace is None or not total else f", {duration((total - done) * pace)} left"
        self.text.setText(f"{what}: {done} of {total}{left}" if total else what)


def duration(seconds: float) -> str:
    """Seconds as a person says it: ``8 s``, ``3 min``, ``1 h 20 min``."""
    if seconds != seconds:
        return "?"
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


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


def note(text: str = "") -> QLabel:
    """A line of small text that wraps."""
    made = QLabel(text)
    made.setWordWrap(True)
    made.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return made


def layer_state(layer: Any) -> dict[str, Any]:
    """What `napari_plugin.layers.stack_of_layer` wants to know of a layer."""
    return {
        "name": layer.name, "scale": layer.scale, "translate": layer.translate, "units": layer.units,
        "axis_labels": layer.axis_labels, "metadata": layer.metadata, "rgb": getattr(layer, "rgb", False),
    }  # fmt: skip


def stack_of(layer: Any, *, axes: str | None = None) -> Stack:
    """The stack a layer shows."""
    return layers.stack_of_layer(layer.data, layer_state(layer), axes=axes)


def path_of(layer: Any) -> Path | None:
    """The file a layer was read from, where there is one."""
    kept = layer.metadata.get(layers.KEY, {}).get("source")
    path = kept or layer.source.path
    return Path(path) if path and Path(path).exists() else None


def selected_image(viewer: napari.Viewer) -> Any:
    """The image layer that is selected, else the first one."""
    images = [one for one in viewer.layers if type(one).__name__ == "Image"]
    if not images:
        raise UsageError("There is no image; open one with File > Open, or try File > Open Sample > OperandoSeg.")
    return next((one for one in images if one in viewer.layers.selection), images[0])


def view_of(viewer: napari.Viewer, layer: Any) -> tuple[slice, slice] | None:
    """Rows and columns of a layer that are on show; None where they are not to be told, as in three dimensions."""
    if viewer.dims.ndisplay != 2 or tuple(viewer.dims.order[-2:]) != (viewer.dims.ndim - 2, viewer.dims.ndim - 1):
        return None
    (top, left), (bottom, right) = (corner[-2:] for corner in layer.corner_pixels)
    return slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1)


def lock(viewer: napari.Viewer, layer: Any) -> Callable[[], None]:
    """Let nobody draw on a layer until the function given back is called, which also gives back the tool in hand."""
    mode, was = layer.mode, layer.editable
    layer.editable = False

    def release() -> None:
        if layer in viewer.layers:
            layer.editable = was
            layer.mode = mode

    return release


def add_layers(viewer: napari.Viewer, found: Iterable[layers.LayerData]) -> list[Any]:
    """Add layer data to the viewer."""
    from napari.layers import Layer

    made = []
    for data in found:
        layer = Layer.create(*data)
        viewer.add_layer(layer)
        made.append(layer)
    return made


def name_axes(viewer: napari.Viewer, axes: str) -> None:
    """Say t, z, y, x on the sliders."""
    if viewer.dims.ndim == len(axes):
        viewer.dims.axis_labels = tuple(axes)
