# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Thresholds on probabilities."""

import pytest
import torch
from anomalib.data import InferenceBatch

from anomalib_diffusionad.post_processor import ProbabilityPostProcessor


def process(post_processor: ProbabilityPostProcessor, score: list[float]) -> InferenceBatch:
    maps = torch.tensor(score)[:, None, None, None].expand(-1, 1, 2, 2)
    return post_processor(InferenceBatch(pred_score=torch.tensor(score), anomaly_map=maps))


def test_half_is_the_threshold_where_none_was_found() -> None:
    result = process(ProbabilityPostProcessor(), [0.1, 0.49, 0.51, 0.9])
    assert result.pred_label.tolist() == [False, False, True, True]
    assert result.pred_mask.flatten(1).all(dim=1).tolist() == [False, False, True, True]
    torch.testing.assert_close(result.pred_score, torch.tensor([0.1, 0.49, 0.51, 0.9]))


def test_the_best_threshold_of_the_validation_set_is_used_for_scores_left_as_they_are() -> None:
    post_processor = ProbabilityPostProcessor()
    post_processor._image_threshold.fill_(0.2)
    post_processor._pixel_threshold.fill_(0.8)
    result = process(post_processor, [0.1, 0.3, 0.9])
    assert result.pred_label.tolist() == [False, True, True]
    assert result.pred_mask.flatten(1).all(dim=1).tolist() == [False, False, True]
    torch.testing.assert_close(result.anomaly_map[:, 0, 0, 0], torch.tensor([0.1, 0.3, 0.9]))


@pytest.mark.parametrize(("sensitivity", "labels"), [(0.7, [False, True, True]), (0.3, [False, False, False])])
def test_sensitivity_moves_the_threshold(sensitivity: float, labels: list[bool]) -> None:
    post_processor = ProbabilityPostProcessor(image_sensitivity=sensitivity)
    assert process(post_processor, [0.25, 0.4, 0.6]).pred_label.tolist() == labels


def test_settings_survive_a_checkpoint() -> None:
    one, two = ProbabilityPostProcessor(image_sensitivity=0.7), ProbabilityPostProcessor()
    two.load_checkpoint_config(one.checkpoint_config())
    assert two.image_sensitivity == 0.7
    assert not two.enable_normalization
