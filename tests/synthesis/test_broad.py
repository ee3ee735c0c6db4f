# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalies of many kinds: each kind alone, what can be seen of it, and all of them on a batch."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anomalib_diffusionad.synthesis import AnomalySynthesizer, Foreground
from anomalib_diffusionad.synthesis.broad import KINDS, Scene, batch, draw_anomalies
from anomalib_diffusionad.synthesis.broad.draw import FADE, SHARES, Drawn, add
from anomalib_diffusionad.synthesis.broad.pixels import widened
from anomalib_diffusionad.synthesis.broad.places import place
from anomalib_diffusionad.synthesis.broad.visibility import roughness, visible

from .objects import draw_object

SIZES = (64, 96, 128, 224)
kinds = pytest.mark.parametrize("kind", KINDS)


def scene(size: int = 128, *, grey: bool = False, noise: float = 3, textured: bool = True) -> Scene:
    colour = {"background": (60, 60, 60), "colour": (170, 170, 170)} if grey else {}
    images, masks = zip(*(draw_object(size, noise=noise, seed=seed, **colour) for seed in range(3)), strict=True)
    images = [image.astype(np.float32) / 255 for image in images]
    rng = np.random.default_rng(0)

    def texture() -> np.ndarray:
        return rng.random((size, size, 3), dtype=np.float32)

    return Scene(images[0], masks[0], images, texture if textured else None)


def some(kind: str, where: Scene, count: int = 12) -> list[Drawn]:
    """Anomalies of one kind that can be seen, one on each image."""
    rng, clean = np.random.default_rng(0), np.zeros(where.image.shape[:2], dtype=bool)
    empty = Drawn(where.image, clean, clean, where.image, 0.0, ())
    found = [drawn for drawn in (add(empty, kind, where, rng) for _ in range(8 * count)) if drawn is not None]
    assert len(found) >= count
    return found[:count]


# kinds


@kinds
@pytest.mark.parametrize("size", SIZES)
def test_each_kind_keeps_form_and_range(kind: str, size: int) -> None:
    where, rng = scene(size), np.random.default_rng(0)
    for _ in range(6):
        other, weight = KINDS[kind](where.image, where, rng)
        assert (other.dtype, weight.dtype) == (np.float32, np.float32)
        assert np.broadcast_shapes(other.shape, where.image.shape) == (size, size, 3)
        assert weight.shape == (size, size)
        assert 0 <= weight.min() <= weight.max() <= 1 + 1e-6


@kinds
@pytest.mark.parametrize("textured", [True, False])
def test_nothing_changes_but_inside_the_mask_and_on_its_faint_edge(kind: str, textured: bool) -> None:
    where = scene(textured=textured)
    for drawn in some(kind, where):
        change = np.abs(drawn.image - where.image).max(axis=2)
        assert drawn.image.dtype == np.float32
        assert 0 <= drawn.image.min() <= drawn.image.max() <= 1
        assert drawn.mask.sum() >= 3
        assert not change[~widened(drawn.mask, FADE)].any()
        assert change[drawn.mask].mean() > 0.02
        assert change[drawn.mask].mean() > 2 * change[~drawn.mask & widened(drawn.mask, FADE)].mean()


@kinds
def test_grey_images_stay_grey(kind: str) -> None:
    where = scene(grey=True)
    for drawn in some(kind, where, 6):
        assert np.ptp(drawn.image, axis=2).max() < 1e-6


@kinds
def test_the_images_that_are_given_stay_as_they_are(kind: str) -> None:
    where = scene()
    before = [image.copy() for image in where.others]
    some(kind, where, 3)
    assert all(np.array_equal(a, b) for a, b in zip(before, where.others, strict=True))


def test_thin_anomalies_are_thin_down_to_a_pixel() -> None:
    rng, where, widths = np.random.default_rng(0), scene(), []
    for _ in range(150):
        weight = KINDS["thin"](where.image, where, rng).weight
        line = (weight > 0.25 * weight.max()).astype(np.uint8)
        distance = cv2.distanceTransform(line, cv2.DIST_L2, 5)
        # of the middle of the line, where the distance to its edge is largest
        widths.append(2 * np.median(distance[(distance > 0) & (distance >= cv2.dilate(distance, np.ones((3, 3))))]) - 1)
    assert np.percentile(widths, 90) < 6
    assert np.mean(np.array(widths) <= 1.01) > 0.1


def test_weak_anomalies_are_low_in_contrast() -> None:
    def contrast(kind: str) -> float:
        where = scene(noise=0)
        changes = [np.abs(drawn.image - where.image)[drawn.mask].mean() for drawn in some(kind, where, 30)]
        return float(np.mean(changes))

    assert 0.02 < contrast("weak") < 0.15
    assert contrast("weak") < contrast("texture")


def test_chips_are_small() -> None:
    assert max(drawn.mask.mean() for drawn in some("chip", scene())) < 0.02


def test_structural_anomalies_are_made_of_the_image() -> None:
    """Most of the colours of what is put there are colours of the image, up to interpolation."""
    where = scene(noise=0)
    colours = np.unique(where.image.reshape(-1, 3), axis=0)
    near = []
    for drawn in some("structural", where, 20):
        shown = drawn.appearance[drawn.mask]
        near.append((np.abs(shown[:, None] - colours[None]).max(axis=2).min(axis=1) < 0.1).mean())
    assert np.median(near) > 0.7


# places


def test_half_of_the_places_are_on_the_foreground_and_half_anywhere() -> None:
    where, rng = scene(), np.random.default_rng(0)
    corner = np.zeros_like(where.foreground)
    corner[:40, :40] = True
    for foreground in (where.foreground, corner):
        found = [place(replace(where, foreground=foreground), rng) for _ in range(2000)]
        on = np.mean([foreground[int(y), int(x)] for y, x in found])
        assert on == pytest.approx(0.5 + 0.5 * foreground.mean(), abs=0.05)
    assert place(replace(where, foreground=np.zeros_like(corner)), rng)


# visibility


def test_roughness_is_that_of_the_grain() -> None:
    rng = np.random.default_rng(0)
    rough = [roughness(0.5 + (s * rng.standard_normal((128, 128, 3))).astype(np.float32)) for s in (0.02, 0.04)]
    for calm, wild in zip(*rough, strict=True):
        assert wild == pytest.approx(2 * calm, rel=0.05)
    assert rough[0].pixel > 3 * rough[0].fine > 3 * rough[0].coarse
    assert roughness(scene(noise=0).image) == (0, 0, 0)


@kinds
def test_masks_of_what_cannot_be_seen_are_dropped(kind: str) -> None:
    where = scene(noise=25)
    rng = np.random.default_rng(1)
    mask = np.zeros((128, 128), dtype=bool)
    mask[40:80, 40:80] = True
    strong = 0.5 * mask[..., None] * np.ones(3, np.float32)
    for change, seen in ((strong, True), (0.03 * strong, False), (0 * strong, False)):
        shown = visible(kind, change, mask, where.roughness)
        assert not (shown & ~mask).any()
        assert bool(shown.any()) == seen
        assert not seen or shown.sum() > 0.9 * mask.sum()
    assert not visible(kind, strong, ~(mask | True), where.roughness).any()
    grain = (0.1 * rng.standard_normal((128, 128, 3)) * mask[..., None]).astype(np.float32)
    if kind in {"structural", "chip", "weak"}:
        assert not visible(kind, grain, mask, where.roughness).any()


def test_a_texture_pasted_on_itself_is_no_anomaly() -> None:
    rng = np.random.default_rng(0)
    image = np.clip(0.5 + 0.15 * rng.standard_normal((128, 128, 1)), 0, 1).astype(np.float32).repeat(3, axis=2)
    where = Scene(image, np.ones((128, 128), dtype=bool))
    clean = Drawn(image, np.zeros((128, 128), dtype=bool), where.foreground, image, 0.0, ())
    kept = [add(clean, "structural", where, rng) for _ in range(60)]
    assert sum(drawn is not None for drawn in kept) < 30


# several anomalies on an image, and batches


def test_several_anomalies_lie_on_an_image() -> None:
    where, rng = scene(), np.random.default_rng(0)
    drawn = [draw_anomalies(where, rng) for _ in range(150)]
    counts = np.array([len(one.kinds) for one in drawn])
    assert 1.7 < counts.mean() < 2.7
    assert counts.max() >= 4
    assert {kind for one in drawn for kind in one.kinds} == set(KINDS) == set(SHARES)
    for one in drawn:
        # an edge that a further anomaly has uncovered may be a little wider
        changed = np.abs(one.image - where.image).max(axis=2) > 0
        assert (changed & ~widened(one.mask, FADE)).mean() < 0.02


def photos(count: int, size: int) -> torch.Tensor:
    images = np.stack([draw_object(size, noise=3, seed=seed)[0] for seed in range(count)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_holds_what_is_promised(size: int) -> None:
    image, synthesizer = photos(10, size), AnomalySynthesizer(anomalies="broad")
    before = image.clone()
    result, mask, label = synthesizer(image, generator=torch.Generator().manual_seed(0))
    assert torch.equal(image, before)
    assert (result.shape, result.dtype) == (image.shape, torch.float32)
    assert (mask.shape, mask.dtype) == ((10, 1, size, size), torch.float32)
    assert set(mask.unique().tolist()) == {0, 1}
    assert 0 <= result.min() <= result.max() <= 1
    assert torch.equal(label, mask.flatten(1).any(dim=1).long())
    assert 5 <= label.sum() <= 7
    same = torch.tensor([torch.equal(a, b) for a, b in zip(result, image, strict=True)])
    assert torch.equal(same, label == 0)


def test_a_generator_fixes_everything_and_leaves_the_global_states_alone() -> None:
    image, synthesizer = photos(6, 64), AnomalySynthesizer(anomalies="broad")
    state, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - it must not be used
    one, same, other = (synthesizer(image, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpys, np.random.get_state()[1])  # noqa: NPY002
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])


@pytest.mark.parametrize(("anomalies", "share"), [("perlin", 0.5), ("broad", 0.3)])
def test_share_of_normal_images(anomalies: str, share: float) -> None:
    assert AnomalySynthesizer(anomalies=anomalies).normal_share == share
    for wanted in (0.0, 0.25, 0.3, 1.0):
        synthesizer = AnomalySynthesizer(anomalies=anomalies, normal_share=wanted)
        rows = [synthesizer._anomalous_rows(7, torch.Generator().manual_seed(seed)) for seed in range(300)]
        counts = {len(each) for each in rows}
        assert np.mean([len(each) for each in rows]) == pytest.approx(7 * (1 - wanted), abs=0.1)
        assert max(counts) - min(counts) <= 1
        assert all(len(set(each)) == len(each) for each in rows)


def test_the_steps_say_what_was_done() -> None:
    image = photos(8, 64)
    synthesizer = AnomalySynthesizer(anomalies="broad")
    steps = synthesizer.steps(image, generator=torch.Generator().manual_seed(0))
    assert (steps.shape.shape, steps.mask.dtype) == ((8, 1, 64, 64), torch.bool)
    assert steps.foreground.all()
    assert steps.appearance.shape == steps.result.shape == image.shape
    assert steps.opacity.shape == (8, 1, 1, 1)
    assert all(set(kinds) <= set(KINDS) for kinds in steps.kinds)
    assert [bool(mask.any()) for mask in steps.mask] == [bool(kinds) for kinds in steps.kinds]


class Spy(Foreground):
    def __call__(self, image: torch.Tensor, image_path: object = None, generator: object = None) -> torch.Tensor:
        self.paths = image_path
        return super().__call__(image)


def test_the_foreground_is_asked_for_the_files_of_the_anomalous_images() -> None:
    synthesizer = AnomalySynthesizer(anomalies="broad", normal_share=0.5)
    synthesizer.foreground = Spy()
    names = [str(number) for number in range(6)]
    image = photos(6, 64)
    result, _, _ = synthesizer(image, names, generator=torch.Generator().manual_seed(0))
    changed = {name for name, a, b in zip(names, result, image, strict=True) if not torch.equal(a, b)}
    assert len(synthesizer.foreground.paths) == 3
    assert changed <= set(synthesizer.foreground.paths)


def test_textures_come_from_the_bank_at_the_step() -> None:
    asked: list[tuple] = []

    class Bank:
        def draw(self, count: int, step: int, generator: torch.Generator) -> torch.Tensor:
            asked.append((count, step))
            return torch.randint(256, (count, 3, 64, 64), generator=generator).byte()

    synthesizer = AnomalySynthesizer(0.0, "broad", 0.0)
    synthesizer.textures = Bank()
    synthesizer(photos(12, 64), step=5, generator=torch.Generator().manual_seed(0))
    assert asked
    assert set(asked) == {(1, 5)}


def test_how_many_threads_draw_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthesizer, image, used = AnomalySynthesizer(0.0, "broad", 0.0), photos(8, 64), set()
    real = batch.draw_anomalies

    def noting(where: Scene, rng: np.random.Generator) -> Drawn:
        used.add(threading.get_ident())
        time.sleep(0.01)  # so that no thread does all of it
        return real(where, rng)

    monkeypatch.setattr(batch, "draw_anomalies", noting)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        # a window of one file, which moves on
        with synthesizer.opened(str(folder / "good"), "none", 64, textures_mib=0):
            results.append(
                [synthesizer(image, step=step, generator=torch.Generator().manual_seed(step)) for step in range(3)]
            )
        assert (used == {threading.get_ident()}) == (threads == 1)
        used.clear()
    for alone, together in zip(*results, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_drawn_on_in_float32(dtype: torch.dtype) -> None:
    image = photos(4, 64).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        result, _, label = AnomalySynthesizer(anomalies="broad", normal_share=0.5)(
            image, generator=torch.Generator().manual_seed(0)
        )
    assert result.dtype == dtype
    for row in torch.nonzero(label == 0)[:, 0]:
        assert torch.equal(result[row], image[row])


@pytest.mark.parametrize("arguments", [{"anomalies": "none"}, {"normal_share": -0.1}, {"normal_share": 1.5}])
def test_arguments_out_of_range_are_named(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        AnomalySynthesizer(**arguments)


def test_a_batch_without_anomalous_images() -> None:
    image = photos(3, 64)
    result, mask, label = AnomalySynthesizer(anomalies="broad", normal_share=1.0)(image)
    assert torch.equal(result, image)
    assert not mask.any()
    assert not label.any()
