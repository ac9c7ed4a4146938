#!/usr/bin/env python3
"""Makes examples/fashion-mnist/*.gz: the first 100 photos of each class of Fashion-MNIST's two splits.

    apt-get install dataset-fashion-mnist
    python3 scripts/make_fashion_example.py

The files are IDX, as in the original, sorted by class (gzip likes that better), and come out the same byte for byte
on every run with the same zlib.
"""

import gzip
import pathlib
import struct
import sys

SOURCE = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
TARGET = pathlib.Path(__file__).resolve().parent.parent / "examples" / "fashion-mnist"
PER_CLASS = 100
CLASSES = 10
IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801


def read(split: str) -> tuple[list[bytes], bytes, int, int]:
    images = gzip.decompress((SOURCE / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((SOURCE / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    magic, count, rows, columns = struct.unpack(">4I", images[:16])
    assert magic == IMAGES_MAGIC and struct.unpack(">2I", labels[:8]) == (LABELS_MAGIC, count)
    size = rows * columns
    return [images[16 + i * size : 16 + (i + 1) * size] for i in range(count)], labels[8:], rows, columns


def write(name: str, content: bytes) -> None:
    packed = gzip.compress(content, compresslevel=9, mtime=0)
    (TARGET / name).write_bytes(packed)
    print(f"{name}: {len(packed):,} bytes")


for source, target in (("train", "train"), ("t10k", "test")):
    images, labels, rows, columns = read(source)
    chosen = [i for c in range(CLASSES) for i in [i for i, label in enumerate(labels) if label == c][:PER_CLASS]]
    assert len(chosen) == PER_CLASS * CLASSES
    write(
        f"{target}-images.gz",
        struct.pack(">4I", IMAGES_MAGIC, len(chosen), rows, columns) + b"".join(images[i] for i in chosen),
    )
    write(f"{target}-labels.gz", struct.pack(">2I", LABELS_MAGIC, len(chosen)) + bytes(labels[i] for i in chosen))
