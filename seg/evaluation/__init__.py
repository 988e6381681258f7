"""Scores of masks against truth, and what the error of a mask does to each number measured from it."""

from seg.evaluation.files import evaluate_files, find_pairs
from seg.evaluation.metric_errors import metric_errors, summarise_errors
from seg.evaluation.scores import Evaluation, Tally, compare_labels
from seg.evaluation.threshold import otsu_labels

__all__ = [
    "Evaluation",
    "Tally",
    "compare_labels",
    "evaluate_files",
    "find_pairs",
    "metric_errors",
    "otsu_labels",
    "summarise_errors",
]
