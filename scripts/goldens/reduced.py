#!/usr/bin/env python3
"""Writes what Pillow (libjpeg-turbo) makes of the test JPEGs at 1/2, 1/4 and 1/8 of their scale.

    scripts/goldens/reduced.py > crates/penjing/tests/goldens/reduced.csv

Rows: file, divisor, columns, rows, RGB bytes in hex; upright. Needs pillow.
"""

import pathlib

import PIL
from PIL import Image, ImageOps, features

PHOTOS = pathlib.Path("crates/penjing/tests/photos")
NAMES = ["baseline_420", "baseline_422", "baseline_444", "gray", "gray_progressive", "progressive_420", "restart",
         "orientation_6"]

print(f"# Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}; file,divisor,columns,rows,RGB")
for path in sorted(PHOTOS.glob("*.jpg")):
    if not any(path.name.startswith(name) for name in NAMES):
        continue
    for by in (2, 4, 8):
        with Image.open(path) as image:
            size = [-(-side // by) for side in image.size]
            # Pillow takes the scale whose sides are not below those asked for, rounding down.
            image.draft(image.mode, tuple(side // by for side in image.size))
            assert list(image.size) == size, (path, by, image.size)
            rgb = ImageOps.exif_transpose(image).convert("RGB")
        print(path.name, by, *rgb.size, rgb.tobytes().hex(), sep=",")
