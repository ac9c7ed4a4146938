#!/usr/bin/env python3
"""Writes Pillow's pixels of every JPEG under some folders to one file, for `cargo run --example decode_parity`.

    scripts/goldens/decode_dump.py OUT FOLDER...

The file is a sequence of records, numbers little-endian u32: length of the path, path, width, height, RGB bytes.
Prints how long Pillow took. Needs pillow.
"""

import io
import pathlib
import struct
import sys
import time

from PIL import Image, ImageOps

out, folders = sys.argv[1], sys.argv[2:]
paths = sorted(p for f in folders for p in pathlib.Path(f).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
seconds = 0.0
with open(out, "wb") as dump:
    for path in paths:
        data = path.read_bytes()
        start = time.perf_counter()
        with Image.open(io.BytesIO(data)) as image:
            rgb = ImageOps.exif_transpose(image).convert("RGB")
        seconds += time.perf_counter() - start
        name = str(path.resolve()).encode()
        dump.write(struct.pack("<I", len(name)) + name + struct.pack("<II", *rgb.size) + rgb.tobytes())
print(f"{len(paths)} photos, Pillow decodes one in {1e3 * seconds / max(len(paths), 1):.2f} ms")
