"""Names of scans and volumes that a program has changed on their way, as spreadsheets do with leading zeros."""

import re
from collections.abc import Callable, Iterable

ZEROS = re.compile(r"0+(?=\d)", re.ASCII)
CHANGES: tuple[tuple[Callable[[str], str], str], ...] = (
    (lambda name: re.sub(r"\d+", lambda part: ZEROS.sub("", part[0], count=1), name), "leading zeros were lost"),
    (lambda name: ZEROS.sub("", re.sub(r"^(\d+)\.0+$", r"\1", name), count=1), "a program wrote it as a number"),
    (str.casefold, "capital letters differ"),
    (lambda name: re.sub(r"\.(nii\.gz|nii|mhd|nrrd|dcm)$", "", re.split(r"[/\\]", name)[-1]), "it is a file's name"),
)
AS_NUMBER = re.compile(r"\d+[.,]\d+e\+?\d+", re.ASCII | re.IGNORECASE)


def altered(unknown: Iterable[str], known: Iterable[str]) -> str:
    """What happened to the first name that is not known as it stands, but would be before a usual change; else "".

    As "1 should be 00001: leading zeros were lost; let the program that wrote it treat the column as text".
    """
    unknown, known = list(dict.fromkeys(unknown)), list(dict.fromkeys(known))
    remedy = "let the program that wrote the file treat the column as text"
    for change, what in CHANGES:
        originals = {change(name): name for name in known}
        for name in unknown:
            if change(name) in originals:
                return f"{name} should be {originals[change(name)]}: {what}; {remedy}"
    number = next((name for name in unknown if AS_NUMBER.fullmatch(name)), None)
    return f"{number} was a name before a program wrote it as a number; {remedy}" if number else ""
