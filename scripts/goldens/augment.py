#!/usr/bin/env python3
"""Writes crates/penjing/tests/goldens/augment.csv: what Pillow, torchvision and timm make of small photos.

Needs pillow, torchvision and timm (any torch). The photos come from a 32-bit generator that the test has too.
"""

import pathlib

import PIL
import torchvision
from PIL import Image, ImageOps
from PIL import ImageEnhance as E
from timm.data import auto_augment as A
from torchvision.transforms import functional as F

FACTORS = (0.0, 0.1, 0.55, 0.8, 0.9371, 1.0, 1.05, 1.2, 1.4321, 1.9)
CHANGES = {
    "brightness": (F.adjust_brightness, FACTORS),
    "contrast": (F.adjust_contrast, FACTORS),
    "saturation": (F.adjust_saturation, FACTORS),
    "hue": (F.adjust_hue, (-0.5, -0.31, -0.05, -0.001, 0.0, 0.02, 0.1, 0.25, 0.5)),
    "sharpness": (lambda image, factor: E.Sharpness(image).enhance(factor), FACTORS),
    "autocontrast": (lambda image, _: ImageOps.autocontrast(image), (0,)),
    "equalize": (lambda image, _: ImageOps.equalize(image), (0,)),
    "posterize": (ImageOps.posterize, (1, 4, 5, 8)),
    "solarize": (ImageOps.solarize, (0, 77, 128, 256)),
}
# What timm calls RandAugment's operations. Its PosterizeIncreasing cuts all bits at 10: here 8 to 4 are kept.
OPERATIONS = {
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
    "brightness": "BrightnessIncreasing",
    "contrast": "ContrastIncreasing",
    "saturation": "ColorIncreasing",
    "sharpness": "SharpnessIncreasing",
    "posterize": None,
    "solarize": "SolarizeIncreasing",
    "rotate": "Rotate",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateXRel",
    "translate_y": "TranslateYRel",
}
MAGNITUDES = (-10, -7, -5, -1, 1, 3, 5, 9, 10)
FILL = (124, 116, 104)
SIZES = ((64, 48), (17, 13), (3, 3), (1, 9))


def photo(width, height, channels, seed):
    """Noise; of every second seed with little contrast."""
    state, data = seed, bytearray()
    for _ in range(width * height * channels):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        value = state >> 24
        data.append(50 + value // 2 if seed % 2 == 0 else value)
    return Image.frombytes("RGB" if channels == 3 else "L", (width, height), bytes(data))


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def cases():
    seed = 0
    for name, (change, numbers) in CHANGES.items():
        for channels in (3, 1):
            for place, number in enumerate(numbers):
                for width, height in SIZES if place == 0 else SIZES[:1]:
                    seed += 1
                    image = photo(width, height, channels, seed)
                    yield "change", name, number, width, height, channels, seed, change(image, number)


    for name in OPERATIONS:
        for channels in (3, 1):
            for magnitude in MAGNITUDES:
                width, height = (64, 48) if magnitude % 2 else (37, 41)
                seed += 1
                image = photo(width, height, channels, seed)
                fill = FILL if channels == 3 else FILL[0]
                yield "operation", name, magnitude, width, height, channels, seed, operate(image, name, magnitude, fill)


def operate(image, name, magnitude, fill):
    if OPERATIONS[name] is None:
        return ImageOps.posterize(image, 8 - A._posterize_level_to_arg(abs(magnitude), {})[0])
    A._randomly_negate = lambda level: -level if magnitude < 0 else level
    hparams = {"interpolation": Image.Resampling.BILINEAR, "img_mean": fill}
    return A.AugmentOp(OPERATIONS[name], prob=1.0, magnitude=abs(magnitude), hparams=hparams)(image)


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    lines = [
        f"# pillow {PIL.__version__}, torchvision {torchvision.__version__.split('+')[0]}; scripts/goldens/augment.py",
        "# group,name,number,width,height,channels,seed,fnv1a64,first bytes",
    ]
    for *fields, result in cases():
        data = result.tobytes()
        lines.append(",".join(map(str, fields)) + f",{fnv1a(data):016x},{data[:12].hex()}")
    path = root / "crates/penjing/tests/goldens/augment.csv"
    path.write_text("\n".join(lines) + "\n")
    print(f"{path.relative_to(root)}: {len(lines) - 2} cases")


main()
