# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""What happens to an image on its way to an anomaly map, in pictures (figure 6 of the paper and more)."""

from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from anomalib_diffusionad.data.tiles import inside, pad_to, sides
from anomalib_diffusionad.diffusion import add_noise
from anomalib_diffusionad.torch_model import DiffusionADModel

from .pictures import heat, picture
from .sheet import FONT_SIZE, GAP, INK, LINE, PAPER, Tile, draw_sheet

FULL_DIFFERENCE = 0.5  # differences are shown up to this value; most are far below 1
BAR_WIDTH = 180
MOST_COLUMNS = 6  # of one image; more stages make two rows


class Stage(NamedTuple):
    """One picture of each image of a batch.

    Attributes:
        title: What it shows.
        values: Images ``(N, 3, H, W)``, or amounts ``(N, 1, H, W)`` that are shown in colours; both in [0, 1].
    """

    title: str
    values: Tensor


@torch.no_grad()
def stages(
    network: DiffusionADModel,
    image: Tensor,
    anomaly_map: Tensor | None = None,
    truth: Tensor | None = None,
) -> list[Stage]:
    """Follow images through the network, at its own time steps and with its own noise.

    The reconstruction is made anew: it takes as long as the network takes for the images.

    Args:
        network: Network in evaluation mode.
        image: ``(N, 3, S, S)`` in [0, 1], on the device of the network.
        anomaly_map: What the network made of the images, ``(N, 1, S, S)`` or ``(N, S, S)``; computed if None.
        truth: Masks of the defects ``(N, 1, S, S)`` or ``(N, S, S)``, if they are known.

    Returns:
        The input, the noisy images, the reconstructions, of which norm-guided denoising has three, the mean absolute
        difference of the channels between input and reconstruction, the map, and the truth if it is given.
    """
    noisy, reconstructions, views = _reconstructions(network, image)
    reconstruction = reconstructions[-1].values
    if anomaly_map is None:
        anomaly_map = network.segment(image, views)
    difference = (image - reconstruction).abs().mean(dim=1, keepdim=True) / FULL_DIFFERENCE
    result = [
        Stage("input", image),
        *noisy,
        *reconstructions,
        Stage("difference", difference),
        Stage("anomaly map", _channel(anomaly_map)),
    ]
    if truth is not None:
        result.append(Stage("truth", _channel(truth).expand(-1, 3, -1, -1)))
    return result


def _reconstructions(network: DiffusionADModel, image: Tensor) -> tuple[list[Stage], list[Stage], Tensor]:
    """Noisy images, what is made of them, and what of that the segmentation network sees."""
    small, big = network.t_small, network.t_big
    noisy_small, noisy_big = (
        Stage(f"noisy, t = {t}", add_noise(image, noise, network.alpha_bar[t]))
        for t, noise in zip((small, big), network.noise, strict=True)
    )
    if network.denoising == "one_step":
        restored = network.restore(image)
        return [noisy_small], [Stage(f"one step, t = {small}", restored)], restored
    if network.denoising == "iterative":
        restored = network.restore(image)
        return [noisy_big], [Stage(f"iterative, {big + 1} steps", restored)], restored
    t = torch.tensor([small, big], device=image.device)[:, None].expand(-1, len(image))
    noise = network.noise[:, None].expand(-1, len(image), -1, -1, -1)
    made = network.reconstruct(image, t[0], t[1], noise[0], noise[1])
    reconstructions = [
        Stage(f"one step, t = {small}", made.small),
        Stage(f"one step, t = {big}", made.big),
        Stage(f"guided, w = {network.guidance_scale:g}", made.guided),
    ]
    return [noisy_small, noisy_big], reconstructions, network.views(*made[:3])


def stages_of_the_peak(
    network: DiffusionADModel, image: Tensor, anomaly_map: Tensor, truth: Tensor | None = None
) -> list[Stage]:
    """As :func:`stages` of one image; of one that is seen through tiles, the tile around the highest pixel of its map.

    Args:
        network: Network in evaluation mode.
        image: ``(1, 3, H, W)`` in [0, 1], on the device of the network.
        anomaly_map: What the network made of it, ``(1, 1, H, W)`` or ``(1, H, W)``.
        truth: Mask of the defects ``(1, 1, H, W)`` or ``(1, H, W)``, if it is known.
    """
    if not network.tiled:
        return stages(network, image, anomaly_map, truth)
    size, (height, width) = sides(network.image_size), image.shape[2:]
    peak = divmod(int(_channel(anomaly_map).argmax()), width)
    top, left = (
        inside(place - side // 2, side, length) for place, side, length in zip(peak, size, (height, width), strict=True)
    )
    parts = [
        None if each is None else _channel(each) if each.shape[1] != 3 else each for each in (image, anomaly_map, truth)
    ]
    cut = [
        None if each is None else pad_to(each[..., top : top + size[0], left : left + size[1]], size) for each in parts
    ]
    return stages(network, *cut)  # type: ignore[arg-type]


def draw_one(steps: list[Stage], row: int, title: str, side: int = 220) -> Image.Image:
    """Draw the stages of one image in a grid, with a title and the meaning of the colours.

    Args:
        steps: Stages of a batch.
        row: Which image of the batch.
        title: Line above the pictures.
        side: Height and width of a picture in pixels.
    """
    tiles = [Tile(picture(stage.values[row]), stage.title) for stage in steps]
    columns = len(tiles) if len(tiles) <= MOST_COLUMNS else -(-len(tiles) // 2)
    return _frame(draw_sheet(tiles, columns, side), title)


def draw_batch(steps: list[Stage], captions: list[str], title: str = "", side: int = 160) -> Image.Image:
    """Draw the stages of a batch, an image a row.

    Args:
        steps: Stages of a batch.
        captions: What to write below the first picture of each row.
        title: Line above the pictures.
        side: Height and width of a picture in pixels.
    """
    tiles = [
        Tile(picture(stage.values[row]), caption if stage is steps[0] else "")
        for row, caption in enumerate(captions)
        for stage in steps
    ]
    return _frame(draw_sheet(tiles, len(steps), side, [stage.title for stage in steps]), title)


def _frame(sheet: Image.Image, title: str) -> Image.Image:
    """Put a title above a sheet and the scales of the colours below it."""
    top = LINE + GAP if title else 0
    framed = Image.new("RGB", (sheet.width, sheet.height + top + LINE + 2 * GAP), PAPER)
    framed.paste(sheet, (0, top))
    draw, font = ImageDraw.Draw(framed), ImageFont.load_default(FONT_SIZE)
    draw.text((GAP, GAP), title, INK, ImageFont.load_default(FONT_SIZE + 2))
    bar = heat(torch.linspace(0, 1, BAR_WIDTH)[None])
    left, upper = GAP, top + sheet.height + GAP
    for low, high in (("difference: 0", f"{FULL_DIFFERENCE:g} or more"), ("probability of an anomaly: 0", "1")):
        draw.text((left, upper), low, INK, font)
        left += round(font.getlength(low)) + GAP
        framed.paste(bar.resize((BAR_WIDTH, FONT_SIZE)), (left, upper + 2))
        left += BAR_WIDTH + GAP
        draw.text((left, upper), high, INK, font)
        left += round(font.getlength(high)) + 6 * GAP
    return framed


def _channel(values: Tensor) -> Tensor:
    """Maps or masks as ``(N, 1, H, W)``, float."""
    return (values[:, None] if values.dim() == 3 else values).float()
