# Copyright (C) 2026 The anomalib-diffusionad authors
# SPDX-License-Identifier: Apache-2.0

"""Sheets of labelled pictures to check by eye."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

GAP = 6
FONT_SIZE = 15
LINE = FONT_SIZE + 7
INK, PAPER, FRAME = "black", "white", "silver"


class Tile(NamedTuple):
    """A picture and the line under it."""

    picture: Image.Image
    caption: str = ""


def draw_sheet(tiles: Sequence[Tile], columns: int, side: int, header: Sequence[str] = ()) -> Image.Image:
    """Lay out pictures in a grid.

    Args:
        tiles: Pictures, row by row. They are scaled to fit; captions too long for their column lose their middle.
        columns: Pictures a row.
        side: Height and width of a picture's place in pixels.
        header: Title of each column, or nothing.

    Returns:
        The sheet, RGB.
    """
    top = LINE + GAP if header else GAP
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (GAP + columns * (side + GAP), top + rows * (side + LINE)), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_SIZE)
    for number, title in enumerate(header):
        draw.text((GAP + number * (side + GAP) + side / 2, GAP / 2), title, INK, font, anchor="ma")
    for number, tile in enumerate(tiles):
        left, upper = GAP + number % columns * (side + GAP), top + number // columns * (side + LINE)
        picture = _fit(tile.picture.convert("RGB"), side)
        x, y = left + (side - picture.width) // 2, upper + (side - picture.height) // 2
        # a frame, without which a white picture could not be seen
        draw.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline=FRAME)
        sheet.paste(picture, (x, y))
        draw.text((left + side / 2, upper + side + 1), _shorten(tile.caption, side, font), INK, font, anchor="ma")
    return sheet


def _fit(picture: Image.Image, side: int) -> Image.Image:
    scale = side / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def _shorten(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Cut the middle out of a text until it is at most ``width`` pixels wide."""
    kept = len(text)
    short = text
    while kept and font.getlength(short) > width:
        kept -= 1
        short = f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"
    return short
