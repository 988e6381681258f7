"""One extremely randomised tree, grown without the lock of the interpreter and without touching its warnings.

The trees are, bit for bit, those of ``sklearn.tree.ExtraTreeClassifier`` (1.9) with ``max_features="sqrt"``, after
Geurts, P., Ernst, D. & Wehenkel, L. (2006), Machine Learning 63, 3-42. scikit-learn's own fit sets the filters of
warnings, which belong to the process: grown in a thread, its trees change what a viewer beside them warns of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

_RANDOM_MAX = 0x7FFFFFFF
_SAME = np.float32(1e-7)  # a feature whose values in a node lie within this is constant there
_EPS = 2.0**-52


@dataclass(frozen=True)
class ExtraTree:
    """Nodes in the order they were made, the root first.

    Parameters
    ----------
    feature : ndarray of int32, shape (N,)
        Feature a node looks at; -1 of a leaf.
    threshold : ndarray of float64, shape (N,)
        Larger goes right.
    left, right : ndarray of int64, shape (N,)
        Children; -1 of a leaf.
    value : ndarray of float64, shape (N, K)
        Share of each class, by weight.
    depth : int
        Comparisons to the deepest leaf.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    depth: int


def grow_tree(
    table: np.ndarray, codes: np.ndarray, weight: np.ndarray, *, n_classes: int, depth: int, seed: int
) -> ExtraTree:
    """Grow a tree; may be called in several threads at once.

    Parameters
    ----------
    table : ndarray of float32, shape (N, F)
    codes : ndarray of int64, shape (N,)
        Class of each row, from 0.
    weight : ndarray of float64, shape (N,)
        All positive.
    n_classes, depth : int
    seed : int
        As ``random_state`` of scikit-learn's tree.
    """
    start = np.random.RandomState(seed).randint(0, _RANDOM_MAX) or 1
    n_tried = max(1, int(np.sqrt(table.shape[1])))
    return ExtraTree(*_grow(table, codes, weight, n_classes, depth, n_tried, np.uint32(start)))


def nogil_jit(function: Callable[..., Any]) -> Any:
    """A function compiled on first use, kept on disk where a folder for it can be written."""
    try:
        return numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # numba finds no writable cache folder; compiling anew costs seconds, not correctness
        return numba.njit(function, nogil=True)


@nogil_jit
def _random(state):
    """The next of Marsaglia's xorshift numbers, 0 to 2^31 - 1."""
    x = state[0]
    x ^= np.uint32(x << np.uint32(13))
    x ^= np.uint32(x >> np.uint32(17))
    x ^= np.uint32(x << np.uint32(5))
    state[0] = x
    return np.int64(x % np.uint32(2147483648))


@nogil_jit
def _partition(samples, values, start, end, threshold):
    """Bring what is not larger to the front; returns where the rest begins. `values` are moved along."""
    p, stop = start, end
    while p < stop:
        if values[p] <= threshold:
            p += 1
        else:
            stop -= 1
            values[p], values[stop] = values[stop], values[p]
            samples[p], samples[stop] = samples[stop], samples[p]
    return stop


@nogil_jit
def _impurities(samples, codes, weight, start, pos, end, total, w_node, left):
    """Weights and Gini impurities of both sides of a cut; summed over the smaller side, in scikit-learn's order."""
    w_left = 0.0
    if pos - start <= end - pos:
        left[:] = 0.0
        for p in range(start, pos):
            i = samples[p]
            left[codes[i]] += weight[i]
            w_left += weight[i]
    else:
        left[:] = total
        w_left = w_node
        for p in range(end - 1, pos - 1, -1):
            i = samples[p]
            left[codes[i]] -= weight[i]
            w_left -= weight[i]
    w_right = w_node - w_left
    a = b = 0.0
    for c in range(len(left)):
        right = total[c] - left[c]
        a += left[c] * left[c]
        b += right * right
    return w_left, 1.0 - a / (w_left * w_left), w_right, 1.0 - b / (w_right * w_right)


@nogil_jit
def _cut(table, codes, weight, samples, values, start, end, total, w_node, n_known, n_tried, features, state, left):
    """The best of some random cuts of a node: its feature, threshold and place, and the constant features found.

    Features drawn so far lie at the end of `features`; those known to be constant, which the node inherits, in front.
    """
    n_left, n_visited, n_found, n_drawn, n_constant = len(features), 0, 0, 0, n_known
    best, best_feature, best_threshold, best_pos, current = -np.inf, -1, 0.0, end, -1
    while n_left > n_constant and (n_visited < n_tried or n_visited <= n_found + n_drawn):
        n_visited += 1
        k = n_drawn + _random(state) % (n_left - n_found - n_drawn)
        if k < n_known:
            features[n_drawn], features[k] = features[k], features[n_drawn]
            n_drawn += 1
            continue
        k += n_found
        current = features[k]
        low = high = table[samples[start], current]
        for p in range(start, end):
            values[p] = table[samples[p], current]
            low, high = min(low, values[p]), max(high, values[p])
        if high <= np.float32(low + _SAME):
            features[k], features[n_constant] = features[n_constant], current
            n_found += 1
            n_constant += 1
            continue
        n_left -= 1
        features[n_left], features[k] = features[k], features[n_left]
        threshold = (np.float64(high) - np.float64(low)) * np.float64(_random(state)) / np.float64(2147483647) + low
        if threshold == high:
            threshold = np.float64(low)
        pos = _partition(samples, values, start, end, threshold)
        if pos in (start, end):
            continue
        w_left, gini_left, w_right, gini_right = _impurities(
            samples, codes, weight, start, pos, end, total, w_node, left
        )
        gain = -w_right * gini_right - w_left * gini_left
        if gain > best:
            best, best_feature, best_threshold, best_pos = gain, current, threshold, pos
    if best_pos < end and current != best_feature:
        for p in range(start, end):
            values[p] = table[samples[p], best_feature]
        _partition(samples, values, start, end, best_threshold)
    return best_feature, best_threshold, best_pos, n_found


@nogil_jit
def _grow(table, codes, weight, n_classes, max_depth, n_tried, seed):
    """Depth first, left before right; node by node as scikit-learn does it, so that rounding is the same too."""
    n, n_features = table.shape
    size = min(2 ** (max_depth + 1) - 1, 2 * n - 1)
    feature, threshold = np.full(size, -1, np.int32), np.zeros(size)
    children, value = np.full((2, size), -1, np.int64), np.zeros((size, n_classes))
    samples, values = np.arange(n), np.empty(n, np.float32)
    features, constant = np.arange(n_features), np.zeros(n_features, np.int64)
    total, left, state = np.zeros(n_classes), np.zeros(n_classes), np.full(1, seed, np.uint32)
    # What is still to be grown: first and last sample, depth, parent, side, constant features; and its impurity.
    stack, ginis = np.zeros((max_depth + 2, 6), np.int64), np.zeros(max_depth + 2)
    stack[0] = 0, n, 0, -1, 0, 0
    top, node, w_all, reached = 1, -1, 0.0, 0
    while top > 0:
        top -= 1
        node += 1
        start, end, depth, parent, side, n_known = stack[top]
        gini = ginis[top]
        reached = max(reached, depth)
        total[:] = 0.0
        w_node = 0.0
        for p in range(start, end):
            total[codes[samples[p]]] += weight[samples[p]]
            w_node += weight[samples[p]]
        if parent < 0:
            squares = 0.0
            for c in range(n_classes):
                squares += total[c] * total[c]
            gini, w_all = 1.0 - squares / (w_node * w_node), w_node
        else:
            children[side, parent] = node
        for c in range(n_classes):
            value[node, c] = total[c] / w_node
        if depth >= max_depth or end - start < 2 or gini <= _EPS:
            continue
        best_feature, best_threshold, pos, n_found = _cut(
            table, codes, weight, samples, values, start, end, total, w_node, n_known, n_tried, features, state, left
        )
        features[:n_known] = constant[:n_known]
        constant[n_known : n_known + n_found] = features[n_known : n_known + n_found]
        if pos >= end:
            continue
        w_left, gini_left, w_right, gini_right = _impurities(
            samples, codes, weight, start, pos, end, total, w_node, left
        )
        gained = w_node / w_all * (gini - w_right / w_node * gini_right - w_left / w_node * gini_left)
        if gained + _EPS < 0.0:  # by rounding
            continue
        feature[node], threshold[node] = best_feature, best_threshold
        stack[top], ginis[top] = (pos, end, depth + 1, node, 1, n_known + n_found), gini_right
        stack[top + 1], ginis[top + 1] = (start, pos, depth + 1, node, 0, n_known + n_found), gini_left
        top += 2
    n = node + 1
    return feature[:n], threshold[:n], children[0, :n], children[1, :n], value[:n], reached
