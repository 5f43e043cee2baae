"""Text files that people and their programs wrote: every byte order mark and line end, and no file that is no text."""

import gzip
import json
import stat
import zlib
from pathlib import Path

MAX_BYTES = 2**31
# longest first: the mark of UTF-32 begins with that of UTF-16
MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
         (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))  # fmt: skip
OTHERS = (
    (b"PK\x03\x04", "a zip archive or an Excel workbook; save the sheet as csv (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook; save the sheet as csv (UTF-8)"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"<!doctype", "a web page, as a download that needs a login leaves; get the file itself"),
    (b"<html", "a web page, as a download that needs a login leaves; get the file itself"),
    (b"version https://git-lfs", "a pointer of git-lfs; `git lfs pull` gets the file itself"),
)


def require_file(path: Path | str, advice: str = "") -> Path:
    """`path`, if a file is there that can be read to an end.

    Raises FileNotFoundError with `advice`, or ValueError for a folder, a pipe and a device: those may never end.
    """
    path = Path(path)
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{path} does not exist{f'; {advice}' if advice else ''}") from error
    if stat.S_ISDIR(kind):
        raise ValueError(f"{path} is a folder, a file is needed")
    if not stat.S_ISREG(kind):
        raise ValueError(f"{path} is a pipe or a device, a file is needed; write its content to one first")
    return path


def refuse_special(path: Path) -> None:
    """Raise ValueError if a pipe or a device is at `path`: a finished file would take its place."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path} is a pipe or a device and would be replaced by a file; name a file to write")


def read_text(path: Path | str, advice: str = "") -> str:
    r"""A text file with its lines ended by \n, its byte order mark taken away; compressed by gzip or not.

    UTF-8 is read, and UTF-16 and UTF-32 that begin with their mark, as spreadsheets write. Raises what `require_file`
    does, and ValueError that names the file, and the line where there is one, for other encodings and what is no text.
    """
    return decoded(path, advice).replace("\r\n", "\n").replace("\r", "\n")


def decoded(path: Path | str, advice: str = "") -> str:
    """As `read_text`, with the line ends of the file."""
    path = require_file(path, advice)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; a text is read up to {MAX_BYTES:,}")
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = _unpacked(path)
    for start, what in OTHERS:
        if content[:64].lstrip().lower().startswith(start.lower()):
            raise ValueError(f"{path} can not be read as text: it is {what}")
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line, wrong = content[: error.start].count(b"\n") + 1, content[error.start]
        name = encoding.removesuffix("-sig").upper()
        raise ValueError(
            f"{path} can not be read as text: line {line}, byte 0x{wrong:02x} is no {name}; save it as UTF-8"
        ) from error
    for character, what in (
        ("\0", "a NUL character: it is damaged, or UTF-16 without its mark; save it as UTF-8"),
        ("\ufeff", "a byte order mark amid the text, as joined files have; remove it"),
    ):
        if character in text:
            line = text.count("\n", 0, text.index(character)) + 1
            raise ValueError(f"{path} can not be read as text: line {line} has {what}")
    return text


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} can not be unpacked: {error}") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} unpacks to more than {MAX_BYTES:,} bytes; so long a text is not read")
    return content


def read_json(path: Path | str, kind: type = dict) -> dict | list:
    """Read a JSON file that holds names and values, or with `kind` list a list of whatever.

    ValueError names the file if it is no JSON, holds a name twice in one place (the first would be lost), NaN or
    Infinity, or another kind.
    """
    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is not valid JSON: it is nested too deep") from error
    if not isinstance(content, kind):
        wanted = "names and values ({...})" if kind is dict else "a list ([...])"
        raise ValueError(f"{path} should hold {wanted}, not a {type(content).__name__}")
    return content


def _once(pairs: list[tuple[str, object]]) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return content


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
