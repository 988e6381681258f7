import numpy as np
import pytest

from seg.errors import LabelError, UsageError
from seg.labels import LabelClass, LabelSchema, load_schema


def test_the_default_schema_is_the_one_of_the_design(schema):
    assert dict(zip(schema.names, [c.index for c in schema.classes], strict=True)) == {
        "electrolyte": 1, "substrate": 2, "deposit": 3, "dendrite": 4, "dead_lithium": 5, "pit": 6, "void": 7,
        "sei": 8, "separator": 9, "artifact": 10,
    }  # fmt: skip


def test_schema_survives_plain_data(schema):
    assert LabelSchema.from_dict(schema.to_dict()) == schema


def test_unknown_names_give_the_nearest(schema):
    with pytest.raises(UsageError, match="did you mean 'dendrite'"):
        schema.index("dendrit")
    with pytest.raises(UsageError, match="did you mean 'lithium'"):
        load_schema("litium")


def test_values_outside_the_schema_are_named(schema):
    with pytest.raises(LabelError, match=r"255"):
        schema.check(np.array([[0, 3, 255]], np.uint8))
    with pytest.raises(LabelError, match="integer"):
        schema.check(np.zeros((2, 2)))


def test_mask_joins_classes(schema):
    labels = np.array([0, 1, 3, 4, 10], np.uint8)
    np.testing.assert_array_equal(schema.mask(labels, ["deposit", "dendrite"]), [False, False, True, True, False])


def test_zero_and_double_indices_are_refused():
    with pytest.raises(LabelError, match="unlabelled"):
        LabelSchema("bad", (LabelClass(0, "a", "#000000"),))
    with pytest.raises(LabelError, match="twice"):
        LabelSchema("bad", (LabelClass(1, "a", "#000000"), LabelClass(1, "b", "#000000")))
