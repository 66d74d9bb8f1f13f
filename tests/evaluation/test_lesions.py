"""Lesions counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medxfer.evaluation.lesions import LesionRule, count_lesions, total_of
from medxfer.evaluation.segmentation import measure

ANY = LesionRule()


def masks(*boxes: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((20, 20), dtype=bool)
    for box in boxes:
        mask[box] = True
    return mask


A, B, C = np.s_[1:4, 1:4], np.s_[1:4, 10:14], np.s_[12:16, 2:6]


def test_one_found_one_missed_one_invented() -> None:
    counts = count_lesions(masks(A, C), masks(A, B), ANY)

    assert (counts.true, counts.called, counts.found, counts.right) == (2, 2, 1, 1)
    assert (counts.precision, counts.recall, counts.f1) == (0.5, 0.5, 0.5)


def test_a_single_common_voxel_finds_a_lesion_unless_more_is_asked() -> None:
    called = masks(np.s_[3:4, 3:4])

    assert count_lesions(called, masks(A), ANY).found == 1
    strict = count_lesions(called, masks(A), LesionRule(least=0.5))
    assert (strict.found, strict.right) == (
        0,
        1,
    )  # all of the called one is true, a ninth of the true one is called


def test_one_blob_over_all_finds_all_by_overlap_and_one_or_none_by_iou() -> None:
    whole = np.ones((20, 20), dtype=bool)

    assert count_lesions(whole, masks(A, B, C), ANY).recall == 1.0
    pairs = count_lesions(whole, masks(A, B, C), LesionRule(match="iou", least=0.01))
    assert (pairs.true, pairs.called, pairs.found, pairs.right) == (3, 1, 1, 1)
    assert count_lesions(whole, masks(A, B, C), LesionRule(match="iou", least=0.5)).found == 0


def test_pairs_are_made_best_first_and_each_lesion_once() -> None:
    true = masks(np.s_[1:4, 1:11])
    called = masks(np.s_[1:4, 1:4], np.s_[1:4, 5:11])

    counts = count_lesions(called, true, LesionRule(match="iou", least=0.1))

    assert (counts.found, counts.right, counts.called) == (1, 1, 2)
    assert counts.f1 == pytest.approx(2 / 3)


def test_nothing_anywhere_is_not_defined() -> None:
    nothing = masks()

    neither = count_lesions(nothing, nothing, ANY)
    missed, invented = count_lesions(nothing, masks(A), ANY), count_lesions(masks(A), nothing, ANY)

    assert all(math.isnan(value) for value in (neither.precision, neither.recall, neither.f1))
    assert (missed.recall, missed.f1) == (0.0, 0.0)
    assert math.isnan(missed.precision)
    assert (invented.precision, invented.f1) == (0.0, 0.0)
    assert math.isnan(invented.recall)


def test_corners_join_lesions_unless_told_otherwise() -> None:
    aslant = masks(np.s_[1:3, 1:3], np.s_[3:5, 3:5])

    assert count_lesions(aslant, aslant, ANY).true == 1
    assert count_lesions(aslant, aslant, LesionRule(corners=False)).true == 2


def test_small_lesions_count_on_neither_side() -> None:
    rule = LesionRule(least_ml=0.1)  # cm2 here

    found = measure(masks(A, C), masks(B, C), spacing=(1.0, 1.0), tolerance=1.0, lesions=rule).lesions

    assert found is not None
    assert (found.true, found.called, found.found) == (2, 1, 1)  # A has 9 mm2


def test_lesions_of_a_data_set_are_summed() -> None:
    parts = [count_lesions(masks(A), masks(A, B), ANY), count_lesions(masks(A, C), masks(C), ANY)]

    total = total_of(parts)

    assert (total.true, total.called, total.found, total.right) == (3, 3, 2, 2)
