"""Compressed voxels: the whole stream is read to its checksum, which nibabel and ITK never look at."""

import zlib
from typing import BinaryIO

PIECE = 1 << 20
MOST_VOXELS = 1 << 31  # 2048 x 2048 x 512; no CT has more, a broken or malicious header does


def check_size(shape: tuple[int, ...]) -> None:
    """ValueError if a header's shape can not be that of a CT, so that no memory is asked for it."""
    voxels = 1
    for length in shape:
        voxels *= int(length)
    if voxels < 1 or voxels > MOST_VOXELS:
        raise ValueError(f"its header says {' x '.join(map(str, shape))} voxels, which no CT has; the header is broken")


def check_stream(file: BinaryIO, at_least: int, at_most: int) -> None:
    """Decompress a gzip or zlib stream from the file's position to its end, keeping nothing.

    ValueError says what is wrong: no such stream, an end that is missing, a checksum that differs, or another number
    of bytes than from `at_least` to `at_most`. It stops soon after `at_most`, whatever the stream would become.
    """
    size = 0
    rest = file.read(PIECE)
    while True:
        decoder = zlib.decompressobj(47)  # gzip or zlib, by its first bytes
        while not decoder.eof and rest:
            try:
                size += len(decoder.decompress(rest, PIECE))
            except zlib.error as error:
                wrong_sum = "data check" in str(error)
                reason = "its checksum is wrong" if wrong_sum else f"its compressed data are damaged ({error})"
                raise ValueError(f"{reason}; copy it again") from error
            rest = decoder.unconsumed_tail or (file.read(PIECE) if not decoder.eof else b"")
            if size > at_most:
                raise ValueError(
                    f"it holds more than the {at_most} bytes that its header tells of; one of them is wrong"
                )
        if not decoder.eof:
            raise ValueError("it is cut off: its compressed data have no end; copy it again")
        rest = decoder.unused_data
        if rest[:2] != b"\x1f\x8b":  # gzip files may be put one after the other; anything else is padding
            break
    if size < at_least:
        raise ValueError(f"it is cut off: {size} bytes after decompression, its header tells of {at_least}")
