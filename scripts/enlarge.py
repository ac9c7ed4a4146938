#!/usr/bin/env python3
"""Enlarges photos to so many megapixels and saves them as JPEG of quality 90, under the same names.

usage: enlarge.py PHOTOS OUT [--megapixels 12]
(needs pillow; PHOTOS is a folder of JPEGs, looked through with its sub-folders)
"""
import argparse
import pathlib

from PIL import Image


def enlarge(source, target, megapixels):
    with Image.open(source) as photo:
        scale = (megapixels * 1e6 / (photo.width * photo.height)) ** 0.5
        size = (round(photo.width * scale), round(photo.height * scale))
        photo.convert("RGB").resize(size, Image.BICUBIC).save(target, quality=90)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("photos", metavar="PHOTOS", type=pathlib.Path)
    arguments.add_argument("out", metavar="OUT", type=pathlib.Path)
    arguments.add_argument("--megapixels", type=float, default=12)
    a = arguments.parse_args()
    for source in sorted(p for p in a.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")):
        target = a.out / source.relative_to(a.photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        enlarge(source, target, a.megapixels)


if __name__ == "__main__":
    main()
