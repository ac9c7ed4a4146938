#!/usr/bin/env python3
"""Writes small photos of every format to crates/penjing/tests/photos/, with what Pillow decodes from them.

`expected.csv` names each photo, its upright size and the FNV-1a hash of its RGB bytes as Pillow reads it
(`ImageOps.exif_transpose`, then `convert("RGB")`). A lossy photo has Pillow's pixels beside it as
`NAME.pillow.png` instead, because decoders may round differently. Needs pillow.
"""

import io
import pathlib
import struct
import zlib

import PIL
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).resolve().parents[2] / "crates/penjing/tests/photos"
WIDTH, HEIGHT = 47, 37
rows = []


def scene(width=WIDTH, height=HEIGHT):
    """Ramps, hard coloured edges and a little noise: odd sides, so that no chroma block is full."""
    image = Image.new("RGB", (width, height))
    state = 1
    for y in range(height):
        for x in range(width):
            state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
            noise = state >> 29
            pixel = (5 * x + noise, 6 * y + noise, 3 * (x + y) % 256)
            if (x - 12) ** 2 + (y - 12) ** 2 < 60:
                pixel = (230, 20 + noise, 30)
            elif x > 30 and y > 24:
                pixel = (15, 60, 220 - noise)
            image.putpixel((x, y), tuple(min(v, 255) for v in pixel))
    return image


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def keep(name, data, lossy=False, expected=None):
    """Writes the photo and what is expected of it: Pillow's own pixels unless told."""
    (HERE / name).write_bytes(data)
    if expected is None:
        with Image.open(io.BytesIO(data)) as image:
            expected = ImageOps.exif_transpose(image).convert("RGB")
    if lossy:
        expected.save(HERE / f"{name}.pillow.png", optimize=True)
    rows.append(f"{name},{expected.width},{expected.height},{'' if lossy else format(fnv1a(expected.tobytes()), '016x')}")


def save(name, image, lossy=False, **options):
    data = io.BytesIO()
    kind = {"jpg": "jpeg", "tif": "tiff"}.get(name.rsplit(".", 1)[1], name.rsplit(".", 1)[1])
    image.save(data, kind, **options)
    keep(name, data.getvalue(), lossy)
    return data.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, color, raw, extra=b""):
    """A PNG that Pillow cannot write itself; `raw` has the filter bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def jpegs(rgb):
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        save(f"baseline_{name}.jpg", rgb, True, quality=90, subsampling=subsampling)
        save(f"progressive_{name}.jpg", rgb, True, quality=85, subsampling=subsampling, progressive=True)
    save("restart.jpg", rgb, True, quality=80, restart_marker_blocks=2)
    save("gray.jpg", rgb.convert("L"), True, quality=90)
    save("gray_progressive.jpg", rgb.convert("L"), True, quality=90, progressive=True)
    cmyk = Image.merge("CMYK", [*rgb.split(), rgb.convert("L").point(lambda v: v // 3)])
    data = save("cmyk.jpg", cmyk, True, quality=92)
    adobe = data.index(b"Adobe") + 11
    assert data[adobe] == 0
    keep("ycck.jpg", data[:adobe] + b"\x02" + data[adobe + 1 :], True)
    for tag in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = tag
        save(f"orientation_{tag}.jpg", rgb, True, quality=90, subsampling=0, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 9
    save("orientation_nonsense.jpg", rgb, True, quality=90, subsampling=0, exif=exif)
    save("trailing_bytes.jpg", rgb.resize((16, 16)), True)
    keep("trailing_bytes.jpg", (HERE / "trailing_bytes.jpg").read_bytes() + b"\0\xff after the end", True)
    rows.pop(-2)


def pngs(rgb):
    turned = Image.Exif()
    turned[0x0112] = 6
    alpha = rgb.convert("L").point(lambda v: 255 - v)
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    gray_alpha = rgb.convert("L")
    gray_alpha.putalpha(alpha)
    palette = rgb.quantize(32)
    save("rgb.png", rgb)
    save("rgb_turned.png", rgb, exif=turned)
    save("rgba.png", rgba)
    save("gray.png", rgb.convert("L"))
    save("gray_alpha.png", gray_alpha)
    save("black_white.png", rgb.convert("1"))
    save("palette.png", palette)
    save("palette_transparent.png", palette, transparency=3)
    save("animated.png", rgb, save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180)])
    deep = bytearray()
    for y in range(9):
        deep += b"\0" + b"".join(struct.pack(">HHH", 7000 * x, 65535 - 6000 * y, 255 + 300 * x) for x in range(9))
    keep("rgb_16.png", png(9, 9, 16, 2, bytes(deep)))
    # Pillow clips 16-bit gray to 255 instead of scaling it; the high byte, as for 16-bit colour, is what a viewer shows.
    values = [[(x * 5000 + y * 997) & 0xFFFF for x in range(13)] for y in range(5)]
    raw = b"".join(b"\0" + struct.pack(">13H", *row) for row in values)
    high = Image.new("L", (13, 5))
    high.putdata([v >> 8 for row in values for v in row])
    keep("gray_16.png", png(13, 5, 16, 0, raw), expected=high.convert("RGB"))


def others(rgb):
    turned = Image.Exif()
    turned[0x0112] = 8
    alpha = rgb.copy()
    alpha.putalpha(rgb.convert("L"))
    save("lossy.webp", rgb, True, quality=80)
    save("lossy_alpha.webp", alpha, True, quality=80, exact=True)
    save("lossless.webp", rgb, lossless=True)
    save("lossless_turned.webp", rgb, lossless=True, exif=turned)
    save("animated.webp", rgb, save_all=True, append_images=[rgb.rotate(180)], lossless=True)
    save("rgb.bmp", rgb)
    save("palette.bmp", rgb.quantize(16))
    save("gray.bmp", rgb.convert("L"))
    save("still.gif", rgb.quantize(32))
    save("animated.gif", rgb.quantize(32), save_all=True, append_images=[rgb.rotate(180).quantize(32)], loop=0)
    save("transparent.gif", rgb.quantize(32), transparency=5)
    save("rgb.tif", rgb)
    save("lzw.tif", rgb, compression="tiff_lzw")
    save("deflate.tif", rgb, compression="tiff_adobe_deflate")
    save("gray.tif", rgb.convert("L"))
    save("rgba.tif", alpha)
    save("pages.tif", rgb.crop((5, 5, 28, 24)), save_all=True, append_images=[rgb.rotate(180)], compression="tiff_lzw")
    save("turned.tif", rgb, tiffinfo={274: 6}, compression="tiff_lzw")


def broken(rgb):
    """Photos that must be refused; the test says how."""
    for name, progressive in (("truncated.jpg", False), ("truncated_progressive.jpg", True)):
        data = io.BytesIO()
        rgb.save(data, "jpeg", quality=90, progressive=progressive)
        (HERE / name).write_bytes(data.getvalue()[: len(data.getvalue()) * 2 // 3])
    data = (HERE / "rgb.png").read_bytes()
    (HERE / "truncated.png").write_bytes(data[: len(data) // 2])
    (HERE / "huge.png").write_bytes(png(40_000, 40_000, 8, 2, b"\0" * 100))


def main():
    for old in HERE.glob("*"):
        old.unlink()
    rgb = scene()
    jpegs(rgb)
    pngs(rgb)
    others(rgb)
    broken(rgb)
    header = [f"# pillow {PIL.__version__}; scripts/goldens/photos.py", "# photo,width,height,fnv1a64 of RGB or empty: see NAME.pillow.png"]
    (HERE / "expected.csv").write_text("\n".join(header + rows) + "\n")
    print(f"{len(rows)} photos, {sum(f.stat().st_size for f in HERE.glob('*')) // 1024} KiB")


main()
