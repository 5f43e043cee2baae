"""The pixels of one DICOM file: decompressed, with their padding, and as HU."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from lensnb.ct.volume import to_int16

GREY_FRAMES = "1.2.840.10008.5.1.4.1.1.7.3"  # grey values of 16 bits without any other meaning
AIR_HU = -1024  # what padding becomes
HU_RANGE = (-1024, 3071)
# how the element of the pixels begins, before its length, in the two uncompressed syntaxes that are in use
ELEMENT = {"1.2.840.10008.1.2": b"\xe0\x7f\x10\0", "1.2.840.10008.1.2.1": b"\xe0\x7f\x10\0OW\0\0"}
PLAIN = {(16, signed, photometric) for signed in (0, 1) for photometric in ("MONOCHROME1", "MONOCHROME2")}


@dataclass(frozen=True)
class Header:
    """The tags of a DICOM file up to its pixels (a pydicom dataset), and at which byte the pixels' element begins."""

    path: Path
    tags: object
    pixels_at: int


@dataclass(frozen=True)
class Pixels:
    """Stored values (frames, y, x) of a file. padding: lowest and highest value that mean padding, None without.
    lossy: whether a compression has changed them."""

    path: Path
    stored: np.ndarray
    padding: tuple[int, int] | None
    lossy: bool


def read_header(path: Path) -> Header:
    """Read what a DICOM file says before its pixels; raises almost anything for a damaged file."""
    import pydicom

    with path.open("rb") as file:
        tags = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        return Header(path, tags, file.tell())


def read_pixels(header: Header) -> Pixels:
    """Read and decompress the pixels of a DICOM image; what pydicom can not decode is left to SimpleITK.

    ValueError that names the file and the compression if neither can, or if the file is damaged.
    """
    path, tags = header.path, header.tags
    for name in ("SamplesPerPixel", "BitsStored", "HighBit", "PixelRepresentation"):
        if not isinstance(tags.get(name), int | None):
            raise ValueError(f"{path}: {name} is {tags.get(name)}, not one number; export the series again")
    if int(tags.get("SamplesPerPixel") or 1) != 1:
        raise ValueError(f"{path}: {tags.SamplesPerPixel} values per pixel, no grey ones; remove this picture")
    bits, top = tags.get("BitsStored"), tags.get("HighBit")
    if None not in (bits, top) and int(top) != int(bits) - 1:
        raise ValueError(f"{path}: HighBit {top} does not go with BitsStored {bits}; export the series again")
    stored = _read_plain(header)
    if stored is None:
        stored = _decode(path)
    lossy = str(tags.get("LossyImageCompression", "")) == "01"
    return Pixels(path, stored.reshape(-1, *stored.shape[-2:]), _padding(path, tags), lossy)


def _read_plain(header: Header) -> np.ndarray | None:
    """Stored values (y, x) of one slice of 16-bit numbers without compression, None for anything else.

    Most CT is stored like this, and pydicom would parse the whole file a second time.
    """
    tags = header.tags
    syntax = str(tags.file_meta.get("TransferSyntaxUID", ""))
    kind = tuple(tags.get(name) for name in ("BitsAllocated", "PixelRepresentation", "PhotometricInterpretation"))
    if syntax not in ELEMENT or kind not in PLAIN or (tags.get("NumberOfFrames") or 1) != 1:
        return None
    unused = 16 - int(tags.get("BitsStored") or 0)
    shape = int(tags.Rows), int(tags.Columns)
    size = 2 * shape[0] * shape[1]
    start = ELEMENT[syntax] + size.to_bytes(4, "little")
    with header.path.open("rb") as file:
        file.seek(header.pixels_at)
        content = file.read(len(start) + size)
    if not content.startswith(start) or len(content) < len(start) + size or not 0 <= unused < 16:
        return None
    stored = np.frombuffer(content, "<i2" if kind[1] else "<u2", offset=len(start)).reshape(shape)
    return stored << unused >> unused if unused else stored


def _decode(path: Path) -> np.ndarray:
    """Stored values of any DICOM image through pydicom or, if it can not, SimpleITK."""
    import pydicom
    from pydicom.uid import ImplicitVRLittleEndian

    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:  # an old file without preamble
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    try:
        stored = dataset.pixel_array
    except (NotImplementedError, RuntimeError):
        stored = _read_by_simpleitk(path, dataset)
    except MemoryError as error:
        raise ValueError(f"{path}: there is not enough memory for its pixels") from error
    except Exception as error:  # a damaged file raises almost anything here
        raise ValueError(
            f"{path}: the pixels can not be read ({' '.join(str(error).split())}); it may be cut off or damaged, copy "
            "it again"
        ) from error
    return _with_sign(path, dataset, stored)


def _with_sign(path: Path, dataset: object, stored: np.ndarray) -> np.ndarray:
    """Stored values as BitsStored and PixelRepresentation mean them, whatever a compressed stream says of its sign.

    Some writers compress signed values as unsigned numbers of 16 bits, so that decoders give -1000 in 13 bits as 7192.
    ValueError if a value does not fit the bits in either way.
    """
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation) == 1
    low, high = int(stored.min()), int(stored.max())
    whole = 1 << bits
    lowest = -(whole >> 1) if signed else 0
    if low < lowest or high >= whole:
        raise ValueError(
            f"{path}: its pixels are {low} to {high}, but BitsStored is {bits} and PixelRepresentation {int(signed)}; "
            "header and compressed pixels contradict each other. Export the series uncompressed"
        )
    if not signed or high < whole >> 1:
        return stored
    if low < 0:
        raise ValueError(
            f"{path}: its pixels are {low} to {high}, more than {bits} signed bits can hold; export it uncompressed"
        )
    stored = stored.astype(np.int32)
    return np.where(stored >= whole >> 1, stored - whole, stored)


def to_hu(pixels: Pixels, frame: int, slope: float, intercept: float) -> np.ndarray:
    """HU int16 (y, x) of one frame; padding becomes air.

    A padding value that could be tissue counts only where it reaches the border: some files declare one that their
    image uses. MONOCHROME1 changes how a value is shown, not what it means, so it plays no role.
    """
    stored = pixels.stored[frame]
    hu = to_int16(stored.astype(np.float64) * slope + intercept, pixels.path)
    if pixels.padding is None:
        return hu
    pads = (stored >= pixels.padding[0]) & (stored <= pixels.padding[1])
    ends = [value * slope + intercept for value in pixels.padding]
    if pads.any() and max(ends) > HU_RANGE[0] and min(ends) < HU_RANGE[1]:
        regions, _ = ndimage.label(pads)
        border = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
        pads = np.isin(regions, border[border > 0])
    hu[pads] = AIR_HU
    return hu


def _padding(path: Path, dataset: object) -> tuple[int, int] | None:
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value is None:
        return None
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation) == 1
    ends = []
    for end in (value, value if limit is None else limit):
        try:
            end = int.from_bytes(end, "little") if isinstance(end, bytes) else int(end)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: PixelPaddingValue is {end}, no whole number; export the series again") from error
        end &= (1 << bits) - 1  # a signed value may be written as an unsigned one
        ends.append(end - (1 << bits) if signed and end >> (bits - 1) else end)
    return min(ends), max(ends)


def _read_by_simpleitk(path: Path, dataset: object) -> np.ndarray:
    """Stored values (frames, y, x) through SimpleITK, from a copy without anything that would change them."""
    import SimpleITK as sitk
    from pydicom.dataset import FileDataset, FileMetaDataset

    syntax = dataset.file_meta.TransferSyntaxUID
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, GREY_FRAMES
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or "1.2.3"
    copy = FileDataset("copy", {}, file_meta=meta, preamble=b"\0" * 128)
    copy.SOPClassUID, copy.SOPInstanceUID = GREY_FRAMES, meta.MediaStorageSOPInstanceUID
    copy.PhotometricInterpretation, copy.SamplesPerPixel = "MONOCHROME2", 1
    copy.NumberOfFrames = int(dataset.get("NumberOfFrames") or 1)
    copy.RescaleSlope, copy.RescaleIntercept = 1, 0
    for name in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PixelData"):
        if name not in dataset:
            raise ValueError(f"{path}: {name} is missing, so the pixels can not be read; export the series again")
        if name != "BitsStored":
            copy[name] = dataset[name]
    # by the header's number of bits, SimpleITK would cut off what the stream has beyond
    copy.BitsStored = _precision(bytes(dataset.PixelData)) or int(dataset.BitsStored)
    copy.HighBit = int(copy.BitsStored) - 1
    with tempfile.TemporaryDirectory() as folder:
        copy.save_as(Path(folder) / "copy.dcm")
        try:
            array = sitk.GetArrayFromImage(sitk.ReadImage(str(Path(folder) / "copy.dcm")))
        except RuntimeError as error:
            raise ValueError(
                f"{path}: its compression ({syntax.name}, {syntax}) can not be decoded, or it is damaged. "
                "Export the series uncompressed, or decompress it with gdcmconv --raw"
            ) from error
    return array


def _precision(content: bytes) -> int:
    """How many bits the values of the first JPEG or JPEG-LS stream have by its own header, 0 if it is none."""
    at = content.find(b"\xff\xd8\xff") + 2
    while at > 1 and at + 5 <= len(content) and content[at] == 0xFF:
        kind, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if kind == 0xF7 or (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)):
            return content[at + 4]
        at += 2 + length
    return 0
