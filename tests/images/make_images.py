#!/usr/bin/env python3
"""Makes the files of this folder, and expected.bin: the 32x32 pixels that Pillow makes of each, in the
order of their names. usage: make_images.py      (needs Pillow and numpy)

Every file shows the same picture, a smooth one, so that lossy files can be compared too.
"""
import pathlib

import numpy as np
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent


def picture(width, height):
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    return Image.fromarray(np.stack([
        127 + 120 * np.sin(5 * x + 1), 127 + 120 * np.cos(4 * y), 127 + 120 * np.sin(3 * (x + y))],
        axis=-1).astype(np.uint8), "RGB")


def turned(image, orientation):
    """Stored so that a viewer that applies the orientation shows `image`."""
    back = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image.transpose(back), exif


def save(name, image, **options):
    image.save(HERE / name, **options)


def main():
    small, wide, tall = picture(32, 32), picture(90, 60), picture(40, 70)
    save("small.png", small)
    save("wide.png", wide)
    save("tiny.png", picture(9, 7))
    save("line.png", picture(200, 1))
    save("grey.png", wide.convert("L"))
    save("one_bit.png", wide.convert("1"), bits=1)
    save("palette.png", wide.quantize(32))
    grey16 = (np.asarray(wide.convert("L")).astype(np.uint16) * 257)
    save("grey16.png", Image.fromarray(grey16))
    alpha = wide.copy()
    alpha.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 90).astype(np.uint8), (60, 1))))
    save("alpha.png", alpha)
    save("wide.jpg", wide, quality=95)
    save("progressive.jpg", wide, quality=95, progressive=True)
    save("grey.jpg", wide.convert("L"), quality=95)
    save("cmyk.jpg", wide.convert("CMYK"), quality=95)
    for orientation in range(2, 9):
        stored, exif = turned(tall, orientation)
        save(f"turned{orientation}.jpg", stored, quality=95, exif=exif)

    expected = b""
    for path in sorted([*HERE.glob("*.png"), *HERE.glob("*.jpg")]):
        image = ImageOps.exif_transpose(Image.open(path))
        if image.mode == "I;16":
            image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
        if image.mode == "RGBA":
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        image = image.convert("RGB")
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        image = image.crop((left, top, left + edge, top + edge))
        image = image.resize((32, 32), Image.Resampling.BILINEAR)
        expected += image.tobytes()
    (HERE / "expected.bin").write_bytes(expected)


if __name__ == "__main__":
    main()
