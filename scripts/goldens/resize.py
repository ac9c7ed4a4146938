#!/usr/bin/env python3
"""Writes crates/penjing-runtime/tests/goldens/resize.csv: what Pillow and torchvision make of small photos.

Needs pillow and torchvision (any torch). The photos come from a 32-bit generator that the test has too.
"""

import pathlib

import PIL
import torchvision
from PIL import Image, ImageOps
from torchvision.transforms import functional as F
from torchvision.transforms import InterpolationMode as I

FILTERS = {
    "bilinear": (Image.Resampling.BILINEAR, I.BILINEAR),
    "bicubic": (Image.Resampling.BICUBIC, I.BICUBIC),
    "box": (Image.Resampling.BOX, I.BOX),
}
FILL = (200, 30, 117)


def photo(width, height, seed):
    """Noise; every third seed only black and white, where bicubic overshoots most."""
    state, data = seed, bytearray()
    for _ in range(width * height * 3):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        value = state >> 24
        data.append((255 if value >= 128 else 0) if seed % 3 == 0 else value)
    return Image.frombytes("RGB", (width, height), bytes(data))


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


# Source and input sizes, width first.
SQUASH = [
    ((1, 1), (1, 1)), ((1, 1), (7, 5)), ((1, 9), (4, 4)), ((9, 1), (4, 4)), ((2, 3), (3, 2)), ((5, 5), (5, 5)),
    ((17, 13), (17, 5)), ((17, 13), (6, 13)), ((31, 23), (8, 8)), ((8, 8), (31, 23)), ((64, 48), (32, 32)),
    ((33, 65), (96, 32)), ((97, 71), (48, 48)), ((100, 100), (33, 33)), ((3, 200), (50, 2)), ((200, 3), (2, 50)),
    ((1, 2000), (3, 2)), ((2000, 1), (2, 3)), ((2, 2), (1, 150)), ((1500, 2), (1, 1)), ((3, 1), (300, 1)),
    ((128, 96), (64, 48)), ((125, 94), (56, 56)), ((50, 37), (19, 41)),
]
CROP = [
    ((37, 53), (24, 24), 27), ((53, 37), (24, 24), 27), ((50, 50), (28, 28), 32), ((61, 40), (20, 31), 33),
    ((40, 61), (31, 20), 32), ((15, 11), (32, 32), 21), ((11, 15), (33, 30), 20), ((30, 90), (25, 40), 28),
    ((125, 94), (56, 56), 64), ((1, 40), (16, 16), 3), ((40, 1), (9, 16), 5), ((1, 700), (8, 8), 8),
    ((100, 75), (56, 57), 56), ((23, 29), (29, 23), 24),
]
PAD = [
    ((37, 53), (24, 24)), ((53, 37), (24, 24)), ((50, 50), (28, 28)), ((16, 9), (33, 33)), ((9, 16), (33, 33)),
    ((20, 21), (64, 48)), ((21, 20), (31, 47)), ((100, 7), (32, 32)), ((5, 2), (25, 25)), ((2, 4), (9, 13)),
]
REGION = [
    ((37, 53), (24, 24), (3, 5, 20, 31)), ((53, 37), (24, 20), (0, 0, 53, 20)), ((40, 40), (16, 16), (39, 39, 1, 1)),
    ((64, 48), (32, 32), (10, 7, 33, 35)), ((30, 20), (48, 50), (11, 3, 12, 9)), ((25, 35), (7, 9), (1, 0, 24, 34)),
]


def cases():
    seed = 0
    for color in ("rgb", "gray"):
        for name, (pillow, vision) in FILTERS.items():

            def start(size):
                nonlocal seed
                seed += 1
                image = photo(*size, seed)
                return image if color == "rgb" else image.convert("L")

            for size, out in SQUASH:
                image = start(size)
                yield color, name, "squash", size, out, "", 0, seed, image.resize(out, pillow)
            for size, out, short in CROP:
                image = start(size)
                resized = F.resize(image, [short], vision)
                yield color, name, "crop", size, out, str(short), 0, seed, F.center_crop(resized, [out[1], out[0]])
            for size, out in PAD:
                image = start(size)
                fill = FILL if color == "rgb" else Image.new("RGB", (1, 1), FILL).convert("L").getpixel((0, 0))
                yield color, name, "pad", size, out, "", 0, seed, ImageOps.pad(image, out, pillow, fill)
            for number, (size, out, (x, y, w, h)) in enumerate(REGION):
                image = start(size)
                flip = number % 2
                result = F.resized_crop(image, y, x, h, w, [out[1], out[0]], vision)
                result = F.hflip(result) if flip else result
                yield color, name, "region", size, out, f"{x} {y} {w} {h}", flip, seed, result


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    lines = [
        f"# pillow {PIL.__version__}, torchvision {torchvision.__version__.split('+')[0]}; scripts/goldens/resize.py",
        "# color,filter,fit,photo,input,detail,flip,seed,fnv1a64,first bytes",
    ]
    for color, name, fit, size, out, detail, flip, seed, result in cases():
        assert result.size == out, (fit, size, out, result.size)
        data = result.tobytes()
        lines.append(
            f"{color},{name},{fit},{size[0]}x{size[1]},{out[0]}x{out[1]},{detail},{flip},{seed},"
            f"{fnv1a(data):016x},{data[:12].hex()}"
        )
    path = root / "crates/penjing-runtime/tests/goldens/resize.csv"
    path.write_text("\n".join(lines) + "\n")
    print(f"{path.relative_to(root)}: {len(lines) - 2} cases")


main()
