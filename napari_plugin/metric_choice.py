"""The two lists with which a user says which number counts: an analysis, and a metric it gives for single frames."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox

from napari_plugin.suggest import metrics_of_frames
from seg.analysis import load_analysis
from seg.resources import config_names

PREFERRED = ("covered_fraction", "contact_angle", "void_fraction")  # chosen where the analysis gives them


class MetricChoice:
    """An analysis and one of its metrics; the second list follows the first."""

    def __init__(self, analysis: str = "optical-plan") -> None:
        self.analysis, self.metric = QComboBox(), QComboBox()
        self.analysis.addItems(config_names("analysis"))
        self.analysis.setCurrentText(analysis)
        self.analysis.currentTextChanged.connect(lambda _: self._fill())
        self._fill()

    def follow(self, modality_name: str) -> None:
        """Choose an analysis of this instrument, where another's is chosen."""
        if load_analysis(self.analysis.currentText()).modality != modality_name:
            names = config_names("analysis")
            fitting = [name for name in names if load_analysis(name).modality == modality_name]
            self.analysis.setCurrentText(fitting[0] if fitting else self.analysis.currentText())

    def _fill(self) -> None:
        self.metric.clear()
        self.metric.addItems(metrics_of_frames(load_analysis(self.analysis.currentText())))
        found = [name for name in PREFERRED if self.metric.findText(name) >= 0]
        if found:
            self.metric.setCurrentText(found[0])
