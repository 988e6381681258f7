"""What the network's outputs are, and how the labels of unlike data sets are written for one loss.

A *code* is 0 (unlabelled), 1..K (exactly this class: network output ``code - 1``), or above K: one of a set of
classes, unknown which. Sets let a data set that does not tell substrate from electrolyte train a network that does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from seg.errors import UsageError
from seg.labels import LabelSchema

ClassMap = Mapping[int, tuple[str, ...]]
"""Value in a label file -> names of the classes it may stand for; empty: unlabelled."""

MAX_CODE = 255
GROUND = {"electrolyte", "substrate", "separator", "void"}


@dataclass(frozen=True)
class LabelCodes:
    """The classes of a network, and the sets of them that labels may leave open.

    Parameters
    ----------
    class_indices : tuple of int
        Label value of network output k.
    sets : tuple of tuple of int
        Sets of network outputs; code ``len(class_indices) + 1 + i`` means one of ``sets[i]``.
    """

    class_indices: tuple[int, ...]
    sets: tuple[tuple[int, ...], ...]

    @property
    def n_classes(self) -> int:
        """Number of network outputs."""
        return len(self.class_indices)

    def members(self, code: int) -> tuple[int, ...]:
        """Network outputs that `code` allows; empty for 0."""
        if code == 0:
            return ()
        return (code - 1,) if code <= self.n_classes else self.sets[code - 1 - self.n_classes]

    @property
    def n_codes(self) -> int:
        """Number of codes, 0 included."""
        return 1 + self.n_classes + len(self.sets)

    def ground(self, schema: LabelSchema) -> list[int]:
        """Codes that stand for nothing but what objects lie on or in: electrode, electrolyte, separator, gaps."""
        names = {k: schema.class_name(index) for k, index in enumerate(self.class_indices)}
        return [
            code for code in range(1, self.n_codes)
            if {names[k] for k in self.members(code)} <= GROUND and names[self.members(code)[0]] != "void"
        ]  # fmt: skip

    def code_of(self, names: Iterable[str], schema: LabelSchema) -> int:
        """Code of "one of these classes"; classes the network does not have are left out. 0: no code fits."""
        outputs = {index: k for k, index in enumerate(self.class_indices)}
        members = tuple(sorted(outputs[i] for i in (schema.index(n) for n in names) if i in outputs))
        if len(members) == 1:
            return members[0] + 1
        return 1 + self.n_classes + self.sets.index(members) if members in self.sets else 0


def parse_class_map(classes: Any, schema: LabelSchema, *, where: str) -> ClassMap:
    """The ``classes`` of a data set as names, each checked against the schema; None: the values are the schema's."""
    if classes is None:
        return {0: ()} | {c.index: (c.name,) for c in schema.classes}
    if not isinstance(classes, Mapping) or not all(isinstance(v, int) and v >= 0 for v in classes):
        raise UsageError(f"{where}.classes: {classes!r}; expected values and classes, {{0: null, 1: deposit}}.")
    parsed: dict[int, tuple[str, ...]] = {}
    for value, meaning in classes.items():
        names = () if meaning is None else tuple(meaning) if isinstance(meaning, list | tuple) else (meaning,)
        for name in names:
            if not isinstance(name, str):
                raise UsageError(f"{where}.classes: {value}: {meaning!r}; expected a class name, a list, or null.")
            schema.index(name)
        parsed[value] = names
    if not any(parsed.values()):
        raise UsageError(f"{where}.classes labels nothing; give at least one value the name of a class.")
    return parsed


def make_codes(class_maps: Iterable[ClassMap], exact: Iterable[int], schema: LabelSchema) -> LabelCodes:
    """Choose network outputs and codes for all data sets together.

    Parameters
    ----------
    class_maps : iterable of ClassMap
    exact : iterable of int
        Label values that come on their own from elsewhere (synthetic images).

    Notes
    -----
    A class gets an output when some data set labels it by itself. A set none of whose classes has one counts as its
    first class: with nothing to tell them apart, the order of the list decides.
    """
    maps = list(class_maps)
    alone = set(exact) | {schema.index(n[0]) for m in maps for n in m.values() if len(n) == 1}
    for names in (n for m in maps for n in m.values() if len(n) > 1):
        if not alone & {schema.index(n) for n in names}:
            alone.add(schema.index(names[0]))
    indices = tuple(sorted(alone))
    outputs = {index: k for k, index in enumerate(indices)}
    sets = set()
    for names in (n for m in maps for n in m.values() if len(n) > 1):
        members = tuple(sorted(outputs[i] for i in (schema.index(n) for n in names) if i in outputs))
        if len(members) > 1:
            sets.add(members)
    if 1 + len(indices) + len(sets) > MAX_CODE:
        raise UsageError(f"There are {len(indices)} classes and {len(sets)} sets of classes; at most {MAX_CODE} fit.")
    return LabelCodes(indices, tuple(sorted(sets)))


def value_table(class_map: ClassMap, codes: LabelCodes, schema: LabelSchema) -> np.ndarray:
    """Lookup table from label-file value to code; -1 where the value is not in the map."""
    table = np.full(max(class_map) + 1, -1, np.int16)
    for value, names in class_map.items():
        table[value] = codes.code_of(names, schema)
    return table
