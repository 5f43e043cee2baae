"""CT slices as 16-bit PNG, as DeepLesion has them."""

import io
import zlib
from pathlib import Path

import numpy as np

from lensnb.ct.values import BELOW_HU, FEW, TISSUE_HU, share

NEARLY_HU = BELOW_HU, TISSUE_HU[1]  # a slice may be all padding, a volume not


def read_png(path: Path) -> np.ndarray:
    """HU int16 (y, x) of a 16-bit PNG: stored value - 32768.

    ValueError if it is broken, has 8 bits, or holds no HU, as where another offset than 32768 was added.
    """
    from PIL import Image

    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            mode = image.mode
            stored = np.asarray(image)
        _check_sums(content)
    except Exception as error:  # a damaged PNG raises OSError, SyntaxError, zlib.error, ...
        raise ValueError(f"{path.name}: {' '.join(str(error).split())}") from error
    if mode not in ("I;16", "I;16B", "I") or stored.ndim != 2:
        raise ValueError(f"{path.name}: mode {mode}, not 16-bit grey, so its values are not HU")
    hu = (stored.astype(np.int32) - 32768).astype(np.int16)
    if share(hu, *NEARLY_HU) < FEW:
        raise ValueError(
            f"{path.name}: values from {hu.min()} to {hu.max()} are no HU; it should hold HU + 32768, as the published "
            "PNGs do"
        )
    return hu


def _check_sums(content: bytes) -> None:
    """Compare the checksum of every chunk of a PNG: one wrong bit in twenty passes the decoder, as other HU."""
    start = 8
    while start < len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        if zlib.crc32(content[start + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise ValueError(f"wrong checksum at byte {start}")
        start = end + 4
