"""Codes, sets of classes, and the loss over them."""

import math

import pytest
import torch

from seg.errors import UsageError
from training.config import LossConfig
from training.label_codes import LabelCodes, make_codes, parse_class_map, value_table
from training.losses import MaskedLoss

CODES = LabelCodes((1, 2, 4), ((0, 1),))  # electrolyte, substrate, dendrite; code 4: electrolyte or substrate


def test_codes_of_unlike_data_sets(schema):
    dendrites = parse_class_map({0: ["substrate", "electrolyte"], 1: "dendrite"}, schema, where="a")
    plan = parse_class_map({0: None, 85: "substrate", 255: "deposit"}, schema, where="b")
    codes = make_codes([dendrites, plan], [schema.index("electrolyte")], schema)
    assert codes.class_indices == (1, 2, 3, 4)
    assert codes.sets == ((0, 1),)
    assert value_table(dendrites, codes, schema).tolist() == [5, 4]
    table = value_table(plan, codes, schema)
    assert (table[0], table[85], table[255], table[1]) == (0, 2, 3, -1)


def test_a_set_nothing_can_tell_apart_counts_as_its_first_class(schema):
    only = parse_class_map({0: ["substrate", "electrolyte"], 1: "dendrite"}, schema, where="a")
    codes = make_codes([only], [], schema)
    assert codes.class_indices == (schema.index("substrate"), schema.index("dendrite"))
    assert codes.sets == ()
    assert value_table(only, codes, schema).tolist() == [1, 2]


@pytest.mark.parametrize("classes", [3, {"a": "deposit"}, {0: 5}, {0: None}, {0: "depositt"}])
def test_unusable_class_maps_are_refused(classes, schema):
    with pytest.raises(UsageError):
        parse_class_map(classes, schema, where="data.sources.x")


def test_loss_ignores_unlabelled_pixels(rng):
    logits = torch.from_numpy(rng.normal(size=(2, 3, 8, 12))).float().requires_grad_()
    codes = torch.from_numpy(rng.integers(0, 5, (2, 8, 12)))
    loss_of = MaskedLoss(CODES, LossConfig())
    loss = loss_of(logits, codes)
    loss.backward()
    assert (logits.grad.abs().sum(1)[codes == 0] == 0).all()
    assert (logits.grad.abs().sum(1)[codes > 0] > 0).all()
    changed = torch.where(codes[:, None] == 0, 50.0, logits.detach())
    assert loss_of(changed, codes).item() == loss.item()


def test_cross_entropy_of_a_set_is_the_logarithm_of_its_summed_probability():
    logits = torch.tensor([2.0, 1.0, 0.5])[None, :, None, None]
    p = torch.softmax(logits, 1)[0, :, 0, 0]
    loss_of = MaskedLoss(CODES, LossConfig(dice=0.0))
    assert loss_of(logits, torch.full((1, 1, 1), 4)).item() == pytest.approx(-math.log(p[0] + p[1]), rel=1e-6)
    assert loss_of(logits, torch.full((1, 1, 1), 3)).item() == pytest.approx(-math.log(p[2]), rel=1e-6)


def test_dice_by_hand():
    # Two pixels, truth electrolyte and dendrite: both are predicted with p = 0.5 everywhere among those two.
    logits = torch.tensor([0.0, -1e9, 0.0])[None, :, None, None].expand(1, 3, 1, 2)
    loss = MaskedLoss(CODES, LossConfig(cross_entropy=0.0))(logits, torch.tensor([[[1, 3]]]))
    # each: overlap 0.5, sizes 1 + 1, so 1 - 2 * 0.5 / 2
    assert loss.item() == pytest.approx(0.5, abs=1e-6)
    # a pixel that may be electrolyte says nothing about electrolyte, and that dendrite is not there
    loss = MaskedLoss(CODES, LossConfig(cross_entropy=0.0))(logits, torch.tensor([[[1, 4]]]))
    assert loss.item() == pytest.approx(1 - 2 * 0.5 / (0.5 + 1), abs=1e-6)


def test_a_batch_without_labels_gives_zero_loss_and_no_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = MaskedLoss(CODES, LossConfig())(logits, torch.zeros(1, 4, 4, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0.0
    assert not logits.grad.any()


def test_deep_supervision_weights_coarser_outputs_less():
    codes = torch.ones(1, 8, 8, dtype=torch.uint8)
    fine, coarse = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 4, 4)
    loss_of = MaskedLoss(CODES, LossConfig())
    expected = (loss_of(fine, codes) + 0.5 * loss_of(coarse, codes[:, ::2, ::2])) / 1.5
    assert loss_of([fine, coarse], codes).item() == pytest.approx(expected.item(), rel=1e-6)


def test_ground_is_what_cannot_be_an_object(schema):
    maybe_void = LabelCodes((1, 2, 3, 7), ((0, 1, 3), (1, 2)))  # electrolyte, substrate, deposit, void
    assert maybe_void.ground(schema) == [1, 2, 5]
