# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Synthetic anomalies as a whole."""

from pathlib import Path

import pytest
import torch

from anomalib_diffusionad.data.geometry import Geometry, Origin
from anomalib_diffusionad.synthesis import AnomalySynthesizer, TextureBank, make_foreground
from anomalib_diffusionad.synthesis.synthesizer import blend

from . import test_appearance


def photo(count: int) -> torch.Tensor:
    return test_appearance.photo(count) / 255


@pytest.fixture
def textures(tmp_path: Path) -> TextureBank:
    from torchvision.utils import save_image  # noqa: PLC0415

    for number, image in enumerate(torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))):
        save_image(image, tmp_path / f"{number}.png")
    return TextureBank(tmp_path, 64)


def random_synthesizer() -> AnomalySynthesizer:
    synthesizer = AnomalySynthesizer()
    synthesizer.foreground = make_foreground("random", 64)
    return synthesizer


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_half_of_a_batch_is_anomalous(size: int) -> None:
    synthesizer, image = AnomalySynthesizer(), photo(size)
    counts = []
    for seed in range(40):
        result, mask, label = synthesizer(image, generator=torch.Generator().manual_seed(seed))
        counts.append(int(label.sum()))
        assert result.shape == image.shape
        assert mask.shape == (size, 1, 64, 64)
        assert torch.equal(mask.flatten(1).any(dim=1), label.bool())
    assert set(counts) <= {size // 2, (size + 1) // 2}
    if size % 2:
        assert 0.2 < (torch.tensor(counts) == size // 2).float().mean() < 0.8


@pytest.mark.slow
def test_ten_thousand_images_hold_what_is_promised(textures: TextureBank) -> None:
    """Exactly half anomalous; nothing changed outside the mask; at least nine tenths changed inside."""
    synthesizer = AnomalySynthesizer()
    synthesizer.textures = textures
    image, generator = photo(200), torch.Generator().manual_seed(0)
    anomalous = changed_outside = changed_inside = inside = 0
    for step in range(50):
        result, mask, label = synthesizer(image, step=step, generator=generator)
        changed = ((result - image).abs() > 1e-4).any(dim=1, keepdim=True)
        assert set(mask.unique().tolist()) == {0, 1}
        assert 0 <= result.min() <= result.max() <= 1
        anomalous += int(label.sum())
        changed_outside += int((changed & ~mask.bool()).sum())
        changed_inside += int((changed & mask.bool()).sum())
        inside += int(mask.sum())
    assert anomalous == 5000
    assert changed_outside == 0
    assert changed_inside / inside >= 0.9
    textures.close()


@pytest.mark.slow
def test_opacity_is_uniform_between_its_bounds() -> None:
    synthesizer, image = AnomalySynthesizer(), photo(100)
    generator = torch.Generator().manual_seed(0)
    opacity = torch.cat([synthesizer.steps(image, generator=generator).opacity.flatten() for _ in range(50)])
    assert 0.2 <= opacity.min() < 0.21
    assert 0.79 < opacity.max() <= 0.8
    histogram = torch.histc(opacity, bins=6, min=0.2, max=0.8) / len(opacity)
    assert (histogram - 1 / 6).abs().max() < 0.02


def test_blend_is_equation_12() -> None:
    normal, appearance, mask = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8) > 0.5
    beta = torch.tensor([0.3, 0.7])[:, None, None, None]
    m = mask.float()
    expected = beta * (m * normal) + (1 - beta) * (m * appearance) + (1 - m) * normal
    torch.testing.assert_close(blend(normal, appearance, mask, beta), expected)


def test_share_of_self_augmentation(textures: TextureBank, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = textures.draw
    monkeypatch.setattr(textures, "draw", lambda count, *args: (drawn.append(count), draw(count, *args))[1])
    for share in (0.0, 0.25, 1.0):
        drawn.clear()
        synthesizer = AnomalySynthesizer(self_augmentation=share)
        synthesizer.textures = textures
        for seed in range(20):
            synthesizer.steps(photo(20), generator=torch.Generator().manual_seed(seed))
        assert sum(drawn) / 400 == pytest.approx(1 - share, abs=0.08)
    textures.close()


def test_random_foreground_keeps_anomalies_to_a_part_of_the_image() -> None:
    steps = random_synthesizer().steps(photo(50), generator=torch.Generator().manual_seed(0))
    assert not (steps.mask & ~steps.foreground).any()
    area = steps.foreground.float().mean(dim=(1, 2, 3))
    assert 1 / 9 - 0.05 < area.min() < area.max() <= 1


def test_a_generator_fixes_everything_and_leaves_the_global_state_alone(textures: TextureBank) -> None:
    synthesizer = random_synthesizer()
    synthesizer.textures = textures
    state = torch.get_rng_state()
    one, same, other = (synthesizer(photo(8), generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
    textures.close()


@pytest.mark.parametrize("arguments", [{"self_augmentation": -0.1}, {"self_augmentation": 2.0}])
def test_arguments_out_of_range_are_named(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        AnomalySynthesizer(**arguments)


def test_anomalies_do_not_depend_on_the_precision_of_the_training(textures: TextureBank) -> None:
    """Under autocast, and with another type by default, as of bf16-true and 64-true."""
    synthesizer, image = random_synthesizer(), photo(8)
    synthesizer.textures = textures

    def draw(image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            *synthesizer(image, generator=torch.Generator().manual_seed(3)),
            *synthesizer.steps(image, generator=torch.Generator().manual_seed(3))[:6],  # not the kinds
        )

    expected = draw(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(one, two) for one, two in zip(draw(image), expected, strict=True))
    for dtype in (torch.bfloat16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            drawn = draw(image.to(dtype))
        finally:
            torch.set_default_dtype(torch.float32)
        assert drawn[0].dtype == dtype
        assert torch.equal(drawn[1].float(), expected[1])
        assert torch.equal(drawn[2], expected[2])
        assert (drawn[0].float() - expected[0]).abs().mean() < 0.005  # the images themselves are rounded
        assert torch.equal(drawn[3], expected[3])
        assert drawn[-1].dtype == torch.float32
    textures.close()


def test_images_without_a_file_get_a_mask_from_what_they_show(tmp_path: Path) -> None:
    """Beside others that have one; where it is not known how these lie, they all do."""
    from PIL import Image  # noqa: PLC0415

    from .objects import draw_object  # noqa: PLC0415

    picture, _ = draw_object(64)
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].repeat(2, 1, 1, 1) / 255
    image[:, :, :, :20] = image[:, :, :1, :1]  # the object is cut off on the left
    Image.fromarray((image[0].flip(-1).permute(1, 2, 0) * 255).byte().numpy()).save(tmp_path / "mirrored.png")
    synthesizer, paths = AnomalySynthesizer(), [str(tmp_path / "mirrored.png"), None]
    with synthesizer.opened(None, "auto", 64):
        one, other = synthesizer.steps(image, paths).foreground
        assert torch.equal(one, synthesizer.steps(image.flip(-1)).foreground[0])
        assert torch.equal(other, synthesizer.steps(image).foreground[1])
        assert not torch.equal(one, other)
        synthesizer.expect(Origin(paths, None, "they move"))
        assert torch.equal(synthesizer.steps(image, paths).foreground[0], other)
        synthesizer.expect(Origin(paths[:1], Geometry()))
        assert torch.equal(synthesizer.steps(image, paths).foreground[0], one)


def test_a_batch_of_another_layout_is_painted_on() -> None:
    image = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    turned = image.transpose(-1, -2)
    synthesizer = AnomalySynthesizer()
    one, other = (
        synthesizer(batch, generator=torch.Generator().manual_seed(1)) for batch in (turned, turned.contiguous())
    )
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert one[1].any()
