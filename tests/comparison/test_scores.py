# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch
from scipy.ndimage import label as connected_components
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from anomalib_diffusionad.comparison.scores import (
    IMAGE_METRICS,
    METRICS,
    ScoreKeeper,
    Scores,
    at_threshold,
    measure,
)
from anomalib_diffusionad.post_processor import ProbabilityPostProcessor


def make_scores(*, offset: float = 0.0, scale: float = 1.0, count: int = 8, size: int = 24) -> Scores:
    """Scores of a detector that is right more often than not; defects touch, overlap and differ in size."""
    rng = np.random.default_rng(0)
    label = np.arange(count) % 2
    mask = np.zeros((count, size, size), bool)
    for image in np.flatnonzero(label):
        for _ in range(3):
            top, left, height, width = *rng.integers(0, size - 8, 2), *rng.integers(1, 8, 2)
            mask[image, top : top + height, left : left + width] = True
    maps = offset + scale * (rng.random(mask.shape) + 0.4 * mask)
    score = offset + scale * (rng.random(count) + 0.3 * label)
    names = [f"{number:02d}.png" for number in range(count)]
    return Scores(names, label, score.astype(np.float32), maps.astype(np.float32), mask)


def reference_pro(scores: Scores, limit: float = 0.3) -> float:
    """PRO by its definition: for each threshold, the mean share of each region that is found."""
    regions = []
    for number, mask in enumerate(scores.mask):
        labels, count = connected_components(mask, np.ones((3, 3)))
        regions += [scores.anomaly_map[number][labels == region] for region in range(1, count + 1)]
    normal = scores.anomaly_map[~scores.mask]
    thresholds = np.unique(scores.anomaly_map)[::-1]
    false_positive = np.array([0.0, *[(normal >= threshold).mean() for threshold in thresholds]])
    overlap = np.array([0.0, *[np.mean([(region >= t).mean() for region in regions]) for t in thresholds]])
    grid = np.linspace(0, limit, 20001)
    return float(np.trapezoid(np.interp(grid, false_positive, overlap), grid) / limit)


# probabilities; probabilities in the tail where a float32 sigmoid saturates; distances; negative log-likelihoods
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 0.5), (0.0, 1e-6), (20.0, 5.0), (-400.0, 100.0)])
def test_metrics_are_those_of_independent_code(offset, scale):
    scores = make_scores(offset=offset, scale=scale)
    metrics = measure(scores)
    truth, pixels = scores.mask.ravel(), scores.anomaly_map.ravel()
    assert list(metrics) == list(METRICS)
    assert metrics["image_auroc"] == pytest.approx(roc_auc_score(scores.label, scores.score), abs=1e-4)
    assert metrics["pixel_auroc"] == pytest.approx(roc_auc_score(truth, pixels), abs=1e-4)
    assert metrics["pixel_ap"] == pytest.approx(average_precision_score(truth, pixels), abs=1e-4)
    assert metrics["pixel_pro"] == pytest.approx(reference_pro(scores), abs=1e-3)
    best = max(f1_score(scores.label, scores.score >= threshold) for threshold in scores.score)
    assert metrics["image_f1"] == pytest.approx(best, abs=1e-6)
    best = max(f1_score(truth, pixels >= threshold) for threshold in np.sort(pixels)[-400:])
    assert metrics["pixel_f1"] == pytest.approx(best, abs=1e-6)


def test_metrics_do_not_depend_on_the_scale_of_the_scores():
    assert measure(make_scores(offset=20, scale=32)) == pytest.approx(measure(make_scores()), abs=1e-5)


def test_perfect_scores():
    scores = make_scores()
    perfect = scores._replace(score=scores.label.astype(np.float32), anomaly_map=scores.mask.astype(np.float32))
    assert measure(perfect) == pytest.approx(dict.fromkeys(METRICS, 1.0), abs=1e-6)


def test_saves_and_loads_exactly(tmp_path):
    scores = make_scores(offset=3, scale=1 / 3)
    scores.save(tmp_path)
    loaded = Scores.load(tmp_path)
    assert loaded.image_path == scores.image_path
    for name in ("label", "score", "anomaly_map", "mask"):
        assert np.array_equal(getattr(loaded, name), getattr(scores, name)), name
    assert measure(loaded) == measure(scores)


def test_test_set_without_defects():
    scores = make_scores()
    with pytest.raises(ValueError, match="normal and defective images"):
        measure(scores._replace(label=np.zeros_like(scores.label)))


@pytest.mark.parametrize("missing", ["anomaly_map", "mask"])
def test_without_maps_or_masks_images_are_measured(missing, tmp_path):
    scores = make_scores()._replace(**{missing: None})
    expected = measure(make_scores())
    assert measure(scores) == {name: expected[name] for name in IMAGE_METRICS}
    scores.save(tmp_path)
    assert getattr(Scores.load(tmp_path), missing) is None


HAND_MADE = Scores(
    image_path=list("abcdef"),
    label=np.array([0, 0, 0, 1, 1, 1]),
    score=np.array([0.1, 0.5, 0.9, 0.2, 0.5, 0.8], np.float32),
    anomaly_map=np.array([[[0.0, 0.3], [0.4, 0.9]]] * 6, np.float32),
    mask=np.array([[[False, False], [True, True]]] * 3 + [[[True, False], [False, True]]] * 3),
)


def test_at_thresholds_by_hand():
    # above 0.5 are 0.9, which is good, and 0.8; what reaches the threshold, in 0.5, is not above it
    found = at_threshold(HAND_MADE, 0.5, 0.3)
    assert found == {
        "image_threshold": 0.5,
        "image_f1_at_threshold": pytest.approx(2 * 1 / (3 + 2)),
        "false_alarms": 1,
        "misses": 2,
        "pixel_threshold": 0.3,
        # two pixels of each map are above: both right in three maps, one in the others
        "pixel_f1_at_threshold": pytest.approx(2 * 9 / (12 + 12)),
    }
    for threshold in (0.1, 0.45):
        found = at_threshold(HAND_MADE, threshold, None)
        expected = f1_score(HAND_MADE.label, HAND_MADE.score > np.float32(threshold))
        assert found["image_f1_at_threshold"] == pytest.approx(expected)
        assert "pixel_threshold" not in found


def test_a_threshold_that_nothing_exceeds():
    found = at_threshold(HAND_MADE, 1.0, 1.0)
    assert (found["image_f1_at_threshold"], found["false_alarms"], found["misses"]) == (0, 0, 3)
    assert found["pixel_f1_at_threshold"] == 0


def test_without_thresholds_maps_or_masks_nothing_is_said():
    assert at_threshold(HAND_MADE, None, None) == {}
    for missing in ("anomaly_map", "mask"):
        assert at_threshold(HAND_MADE._replace(**{missing: None}), None, 0.3) == {}


def test_it_is_compared_as_anomalib_does():
    post_processor = ProbabilityPostProcessor()
    post_processor.set_thresholds(image=0.3, pixel=0.7)
    score = np.nextafter(np.float32(0.3), np.float32([0, 0.3, 1])).astype(np.float32)
    batch = InferenceBatch(pred_score=torch.from_numpy(score), anomaly_map=torch.zeros(3, 1, 2, 2))
    alarms = int(post_processor(batch).pred_label.sum())
    scores = HAND_MADE._replace(label=np.array([0, 0, 0, 1]), score=np.append(score, np.float32(1)))
    threshold = float(post_processor.normalized_image_threshold)
    assert at_threshold(scores, threshold, None)["false_alarms"] == alarms == 1


def test_images_that_are_no_files_are_numbered():
    keeper = ScoreKeeper()
    for paths in (None, ["video", "video"]):
        maps = torch.rand(2, 1, 4, 4)
        batch = SimpleNamespace(
            image=torch.rand(2, 3, 4, 4),
            video_path=paths,
            gt_label=torch.tensor([0, 1]),
            pred_score=torch.rand(2),
            anomaly_map=maps,
            gt_mask=None,
        )
        keeper.on_test_batch_end(None, None, batch, batch, 0)
    scores = keeper.scores()
    assert scores.image_path == ["000000", "000001", str(Path("video/000002")), str(Path("video/000003"))]
    assert scores.mask is None
    assert np.array_equal(scores.anomaly_map[2:], maps[:, 0].numpy())


def test_nothing_tested():
    with pytest.raises(ValueError, match="test set is empty"):
        ScoreKeeper().scores()
