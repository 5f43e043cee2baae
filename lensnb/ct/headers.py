"""The headers of MetaImage and NRRD files, read before ITK reads the voxels: what it would assume, or overlook.

ITK takes 1 mm where a spacing is missing, reads any file that a header names, and no version of it notices all files
that are cut off. MetaImage: a header .mhd beside its voxels, or both in one .mha. NRRD: .nhdr, or .nrrd.
"""

import math
import re
from pathlib import Path

import numpy as np

from lensnb.ct.compression import check_size, check_stream

LONGEST = 1 << 18  # bytes of a header
SPARE = 512  # bytes that may follow the voxels: some programs fill a block of the disk
ELEMENT_BYTES = {"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
                 "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
                 "MET_DOUBLE": 8}  # fmt: skip
NRRD_BYTES = {"char": 1, "short": 2, "int": 4, "long long": 8, "longlong": 8, "int8": 1, "int16": 2, "int32": 4,
              "int64": 8, "float": 4, "double": 8}  # fmt: skip
SYNONYMS = {"Position": "Offset", "Origin": "Offset", "Rotation": "TransformMatrix", "Orientation": "TransformMatrix"}
ORIENTED = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las")
GUESS = "orientation is a guess: the header does not say {}; as ITK does, {} taken"


def check_metaimage(path: Path) -> list[str]:
    """Notes on a MetaImage header; ValueError or FileNotFoundError, naming the file, if it can not be relied on."""
    entries, begin = _metaimage_entries(path)
    absent = [key for key in ("DimSize", "ElementType", "ElementDataFile") if not entries.get(key)]
    if absent:
        raise ValueError(f"{path} can not be read: it is no MetaImage, its header does not say {', '.join(absent)}")
    shape = _whole(path, "DimSize", entries["DimSize"])
    sides, size = (_numbers(path, key, entries.get(key)) for key in ("ElementSpacing", "ElementSize"))
    _check_sides(path, "ElementSpacing", size if sides is None else sides, len(shape))
    unit = entries.get("DistanceUnits", "mm").lower()
    if unit not in ("mm", "?", "unknown"):
        raise ValueError(f"{path}: DistanceUnits is {unit!r}; write the header in mm")
    for key, plain in (("ElementToIntensityFunctionSlope", 1), ("ElementToIntensityFunctionOffset", 0)):
        if (number := _numbers(path, key, entries.get(key))) is not None and list(number) != [plain]:
            raise ValueError(f"{path}: {key} is {entries[key]}, which ITK does not apply; write the values as HU")
    if _yes(entries.get("BinaryData", "True")):
        width = ELEMENT_BYTES.get(entries["ElementType"].upper())
        if width is None:
            raise ValueError(f"{path}: ElementType is {entries['ElementType']}, none that a CT can have")
        channels = _whole(path, "ElementNumberOfChannels", entries.get("ElementNumberOfChannels", "1"))[0]
        skip = _skip(path, "HeaderSize", entries.get("HeaderSize"))
        packed = "zlib" if _yes(entries.get("CompressedData", "False")) else "raw"
        data, begin = _data_file(path, entries["ElementDataFile"], "local", begin)
        _check_data(path, data, begin + max(0, skip), width * channels * math.prod(shape), packed, from_end=skip == -1)
    else:
        _data_file(path, entries["ElementDataFile"], "local", begin)
    notes = []
    if sides is not None and size is not None and not np.allclose(sides, size, rtol=1e-3):
        notes.append(f"ElementSize differs: it is {size}, ElementSpacing {sides}, which counts")
    missing = [key for key in ("TransformMatrix", "Offset") if key not in entries]
    if missing:
        notes.append(GUESS.format(" and ".join(missing), "axes to the left, back and head and (0, 0, 0) mm are"))
    return notes


def check_nrrd(path: Path) -> list[str]:
    """Notes on a NRRD header; ValueError or FileNotFoundError, naming the file, if it can not be relied on."""
    with path.open("rb") as file:
        head = file.read(LONGEST)
    if not head.startswith(b"NRRD000"):
        raise ValueError(f"{path} can not be read: it is no NRRD file")
    end = re.search(rb"\n\r?\n", head)
    entries = {}
    for line in head[: end.start() if end else None].decode(errors="replace").splitlines()[1:]:
        if not line.startswith("#") and ":=" not in line and ": " in line:
            key, value = line.split(": ", 1)
            _once(path, entries, key.strip().lower().replace(" ", ""), value.strip())
    absent = [key for key in ("type", "dimension", "sizes", "encoding") if not entries.get(key)]
    if absent:
        raise ValueError(f"{path} can not be read: its header does not say {', '.join(absent)}")
    shape = _whole(path, "sizes", entries["sizes"])
    directions = entries.get("spacedirections", "")
    if not directions:
        _check_sides(path, "space directions", _numbers(path, "spacings", entries.get("spacings")), len(shape))
    units = {word.strip('"').lower() for word in entries.get("spaceunits", entries.get("units", "")).split()}
    if wrong := sorted(units - {"mm", "millimeter", "millimeters", "millimetre", "", "???", "none"}):
        raise ValueError(f"{path}: its unit of length is {wrong[0]!r}; write the header in mm")
    kind = entries["type"].lower().removeprefix("signed ").removeprefix("unsigned ").removesuffix("_t")
    width = NRRD_BYTES.get(kind.removeprefix("u").removesuffix(" int"))
    if width is None:
        raise ValueError(f"{path}: its type is {entries['type']}, none that a CT can have")
    skip = _skip(path, "byte skip", entries.get("byteskip"))
    lines = _skip(path, "line skip", entries.get("lineskip"))
    encoding = {"gz": "zlib", "gzip": "zlib", "raw": "raw"}.get(entries["encoding"].lower(), "")
    if "datafile" not in entries and not end:
        raise ValueError(f"{path} can not be read: it is cut off, its header has no end")
    data, begin = _data_file(path, entries.get("datafile", ""), "", end.end() if end else 0)
    if encoding and not lines and (encoding == "raw" or not skip):
        _check_data(path, data, begin + max(0, skip), width * math.prod(shape), encoding, from_end=skip == -1)
    notes = []
    space = entries.get("space", "").lower()
    if space not in ORIENTED or not directions:
        said = f"a space that ITK knows ({space})" if space and space not in ORIENTED else "space and space directions"
        notes.append(GUESS.format(said, "axes to the left, back and head are"))
    if "spaceorigin" not in entries:
        notes.append(GUESS.format("space origin", "(0, 0, 0) mm is"))
    return notes


def _metaimage_entries(path: Path) -> tuple[dict[str, str], int]:
    """What a MetaImage header says, and the byte at which it ends."""
    with path.open("rb") as file:
        head = file.read(LONGEST)
    entries, end = {}, 0
    for line in head.splitlines(keepends=True):
        end += len(line)
        said = re.match(r"([^=:]*)[=:](.*)", line.decode(errors="replace").strip())  # ITK takes a colon, too
        key = said[1].strip() if said else ""
        if said:
            _once(path, entries, SYNONYMS.get(key, key), said[2].strip())
        if key == "ElementDataFile":
            break
    return entries, end


def _once(path: Path, entries: dict[str, str], key: str, value: str) -> None:
    if entries.setdefault(key, value) != value:
        raise ValueError(f"{path}: its header says {key} twice, {entries[key]!r} and {value!r}; remove the wrong one")


def _yes(word: str) -> bool:
    return word[:1] in ("T", "t", "1")


def _numbers(path: Path, key: str, text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(word) for word in text.split()]
    except ValueError as error:
        raise ValueError(f"{path}: {key} is {text!r}, not numbers") from error


def _whole(path: Path, key: str, text: str) -> tuple[int, ...]:
    words = text.split()
    if not words or not all(word.isdecimal() for word in words):
        raise ValueError(f"{path}: {key} is {text!r}, not whole numbers")
    shape = tuple(map(int, words))
    try:
        check_size(shape)
    except ValueError as error:
        raise ValueError(f"{path} can not be read: {error}") from error
    return shape


def _skip(path: Path, key: str, text: str | None) -> int:
    """How many bytes or lines lie before the voxels; -1: they are the file's last ones."""
    if text is not None and not re.fullmatch(r"-1|[0-9]{1,18}", text):
        raise ValueError(f"{path}: {key} is {text!r}, not a whole number")
    return int(text or 0)


def _check_sides(path: Path, key: str, sides: list[float] | None, axes: int) -> None:
    if not sides:
        raise ValueError(f"{path}: the spacing is missing; without {key} nothing has a size. Write it into the header")
    if not all(math.isfinite(side) and side > 0 for side in sides):
        raise ValueError(f"{path}: the spacing is {sides} mm; it must be above 0")
    if len(sides) != axes:
        raise ValueError(f"{path}: the spacing is {sides} mm, {len(sides)} numbers for {axes} axes; write one for each")


def _data_file(header: Path, name: str, inside: str, begin: int) -> tuple[Path, int]:
    """The file that holds the voxels, which must lie beside the header, and at which byte they may begin."""
    if name.lower() == inside:
        return header, begin
    if name.upper().split()[:1] == ["LIST"] or "%" in name:
        raise ValueError(f"{header}: its voxels are spread over several files ({name}); write them as one file")
    if Path(name).name != name or "\\" in name or name in ("..", "."):
        raise ValueError(
            f"{header} names voxels in another folder, {name}; only a file beside the header is read. Put it there, "
            "and its bare name into the header"
        )
    data = header.parent / name
    if not data.is_file():
        raise FileNotFoundError(f"{data} does not exist; {header} says that it holds the voxels")
    return data, 0


def _check_data(header: Path, data: Path, begin: int, needs: int, packed: str, from_end: bool) -> None:
    """Compare the voxels' bytes with the header, to their checksum if they are compressed."""
    with data.open("rb") as file:
        if packed == "zlib":
            file.seek(begin)
            try:
                check_stream(file, needs, needs + SPARE)
            except ValueError as error:
                raise ValueError(f"{data} can not be read: {error}") from error
            return
        start = file.read(2)
    size = data.stat().st_size - (0 if from_end else begin)
    if size < needs:
        if data == header:
            raise ValueError(f"{data} can not be read: it is cut off, {size} bytes of voxels, its header needs {needs}")
        raise ValueError(f"{data} is cut off: {size} bytes, {header.name} needs {needs}")
    if not from_end and size > needs + SPARE:
        looks = ", and looks compressed" if start == b"\x1f\x8b" else ""
        raise ValueError(f"{data} has {size} bytes{looks}, but {header.name} tells of {needs}; one of them is wrong")
