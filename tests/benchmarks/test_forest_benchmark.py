"""From a new stroke to a predicted frame: our forest, and scikit-learn's own prediction, in one run.

Tiny by default so that it cannot rot. For figures::

    OPERANDOSEG_BENCHMARK_PX=1024 pytest tests/benchmarks/test_forest_benchmark.py --benchmark-enable
"""

import os

import numpy as np
import pytest

from seg.forest import DEPTH, N_TREES, features, fit_forest, predict_forest, warm_up
from seg.labels import load_schema

SIZE_PX = int(os.environ.get("OPERANDOSEG_BENCHMARK_PX", "128"))
FULL = SIZE_PX >= 1024
SCHEMA = load_schema()

pytestmark = [
    pytest.mark.benchmark(group=f"stroke to prediction, one frame of {SIZE_PX} x {SIZE_PX} px, two threads"),
    pytest.mark.timeout(600 if FULL else 60),
]


@pytest.fixture(scope="module")
def frame():
    """Features and strokes of five grey levels under noise; 8000 labelled pixels at the full size."""
    rng = np.random.default_rng(0)
    truth = 1 + (np.arange(SIZE_PX) * 5 // SIZE_PX) * np.ones((SIZE_PX, 1), int)
    image = (0.15 * truth + rng.normal(0, 0.1, truth.shape)).astype(np.float32)
    drawn = np.zeros_like(truth)
    rows = slice(SIZE_PX // 2, SIZE_PX // 2 + max(SIZE_PX // 128, 2))
    drawn[rows] = truth[rows]
    warm_up()
    return features(image, spacing=(1, 1)), drawn, truth


def run(benchmark, frame, function):
    labels = benchmark.pedantic(function, rounds=5 if FULL else 1, warmup_rounds=1 if FULL else 0)
    # five levels 1.5 sigma apart are told apart once a Gaussian has averaged a few pixels
    assert (labels == frame[2]).mean() > 0.9


def test_ours(benchmark, frame):
    planes, drawn, _ = frame
    run(benchmark, frame, lambda: predict_forest(fit_forest([planes], [drawn], SCHEMA), planes).labels)


def test_scikit_learn(benchmark, frame):
    from sklearn.ensemble import ExtraTreesClassifier

    planes, drawn, _ = frame

    def rival():
        model = ExtraTreesClassifier(N_TREES, max_depth=DEPTH, n_jobs=2, random_state=0)
        model.fit(planes[:, drawn > 0].T, drawn[drawn > 0])
        return model.predict(planes.reshape(len(planes), -1).T).reshape(drawn.shape)

    run(benchmark, frame, rival)
