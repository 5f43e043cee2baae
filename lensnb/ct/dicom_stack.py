"""Whether the slices of one series make one volume: one patient, one acquisition, alike, and evenly spaced.

A series UID is only as good as what wrote it: anonymisers remove it, and exports join what belongs apart.
"""

import filecmp
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from lensnb.ct.dicom_slice import Slice

# one value in every slice, where it is given
ONE_VALUE = {
    "PatientID": "patients",
    "PatientName": "patients",
    "PatientBirthDate": "patients",
    "StudyInstanceUID": "studies",
    "FrameOfReferenceUID": "frames of reference",
    "SeriesNumber": "series",
    "DeviceSerialNumber": "scanners",
    "PatientPosition": "patient positions",
    "ConvolutionKernel": "reconstruction kernels",
}
# these may change from one part of the body to the next, as where a scan was made in steps, but do not alternate
BY_PART = {
    "AcquisitionNumber": "acquisitions",
    "KVP": "tube voltages",
    "ImageType": "types of image",
    "SeriesDescription": "series",
    "ContrastBolusAgent": "contrast agents",
    "TemporalPositionIdentifier": "points in time",
    "NominalPercentageOfCardiacPhase": "phases of the heart",
}
TURNED_MM = 1.0  # how far a slice's own orientation may move its outermost pixel from where the volume has it
TURNED_DEGREES = 0.01  # what rounding in the tags makes of equal orientations
DRIFT_MM = 0.5  # from here on, slices that are not even are noted


def check_origin(slices: list[Slice]) -> None:
    """ValueError if tags tell that slices are of several patients, studies or reconstructions.

    It names the two values and a slice of each. A tag that a slice does not have is not compared.
    """
    for tag, what in ONE_VALUE.items():
        values = _said(slices, tag)
        _refuse_two(what, tag, values, others=[pair for pair in values if pair[0] != values[0][0]])


def check_order(slices: list[Slice]) -> None:
    """The same for what may change along the body, but not to and fro. `slices` in their order in space."""
    for tag, what in BY_PART.items():
        values = _said(slices, tag)
        changes = sum(a != b for (a, _), (b, _) in pairwise(values))
        if changes >= len({value for value, _ in values}):
            _refuse_two(what, tag, values, others=[pair for pair in values if pair[0] != values[0][0]])


def _refuse_two(what: str, tag: str, values: list[tuple[str, Slice]], others: list[tuple[str, Slice]]) -> None:
    if others:
        (first, one), (second, other) = values[0], others[0]
        raise ValueError(
            f"one series of two {what}: {tag} is '{first}' in {one.name}, but '{second}' in {other.name}. "
            "Give a folder with only the slices of one"
        )


def _said(slices: list[Slice], tag: str) -> list[tuple[str, Slice]]:
    """A tag's value as text in the slices that have it; two ways to write the same are alike."""
    values = []
    for one in slices:
        try:
            value = one.header.tags.get(tag)
        except Exception:  # it is no value of its kind: it tells nothing, and the volume does not follow from it
            continue
        parts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        texts = [f"{part:g}" if isinstance(part, float) else str(part).rstrip("^ ").strip() for part in parts]
        if value is not None and any(texts):
            values.append(("\\".join(texts).upper(), one))
    return values


def check_uniform(slices: list[Slice]) -> list[str]:
    """ValueError if slices differ in size, pixel spacing or orientation; a note if the orientation differs a little."""
    first = slices[0]
    _check_alike(slices, "Rows and Columns", lambda one: one.shape)
    _check_alike(slices, "PixelSpacing", lambda one: one.spacing)
    moved = [_moved_mm(one, first) for one in slices]
    worst = int(np.argmax(moved))
    degrees = _degrees(slices[worst], first)
    if moved[worst] > TURNED_MM or degrees > 90:
        raise ValueError(
            f"{slices[worst].name}: ImageOrientationPatient is {_shown(slices[worst].orientation)}, but "
            f"{_shown(first.orientation)} in {first.path.name}: turned by {degrees:.3g} degrees, which moves the last "
            f"pixel by {moved[worst]:.3g} mm ({TURNED_MM:g} is tolerated). Resample the series and give it as NIfTI"
        )
    if degrees > TURNED_DEGREES:
        return [
            f"turned slices: ImageOrientationPatient differs by up to {degrees:.2g} degrees, so that pixels lie up to "
            f"{moved[worst]:.2g} mm from where they are shown"
        ]
    return []


def _check_alike(slices: list[Slice], tag: str, value: Callable[[Slice], object]) -> None:
    values = np.array([value(one) for one in slices], dtype=float)
    other = np.flatnonzero(~np.isclose(values, values[0], atol=1e-3).all(axis=1))
    if len(other):
        raise ValueError(
            f"{slices[other[0]].name}: {tag} is {values[other[0]].tolist()}, but {values[0].tolist()} in "
            f"{slices[0].path.name}; not one CT volume. Give a folder with only the slices that belong together"
        )


def _moved_mm(one: Slice, first: Slice) -> float:
    """How far the corner opposite to the first pixel lies from where the other slice's orientation puts it."""
    rows, columns = one.shape
    extent = np.array([columns * one.spacing[1], rows * one.spacing[0]])
    difference = (one.orientation - first.orientation) * extent[:, None]
    return float(max(np.linalg.norm(difference[0] + difference[1]), *np.linalg.norm(difference, axis=1)))


def _degrees(one: Slice, first: Slice) -> float:
    between = (one.orientation * first.orientation).sum(axis=1) / np.linalg.norm(one.orientation, axis=1)
    between /= np.linalg.norm(first.orientation, axis=1)
    return float(np.degrees(np.arccos(np.clip(between, -1, 1))).max())


def _shown(orientation: np.ndarray) -> list[float]:
    return orientation.ravel().round(6).tolist()


def slice_step(slices: list[Slice], normal: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The vector (3) from slice to slice in mm, after checking that it is everywhere the same, and notes.

    `slices` in their order along `normal`. ValueError names the two slices between which another one is missing, or
    that lie at the same position, unevenly, or beside the line of the others.
    """
    if len(slices) == 1:
        thickness = slices[0].thickness
        if thickness <= 0:
            raise ValueError(f"{slices[0].name}: SliceThickness is {thickness:g}, without which one slice has no depth")
        return normal * thickness, [f"one slice: its thickness, {thickness:g} mm, is taken for the slice distance"]
    positions = np.array([one.position for one in slices])
    along = positions @ normal
    gaps = np.diff(along)
    typical = float(np.sort(gaps)[len(gaps) // 2])
    even = "For even slices, resample the series and give it as NIfTI"
    for i, gap in enumerate(gaps):
        pair = f"{slices[i].name} and {slices[i + 1].name}"
        if gap < 0.01:
            a, b = slices[i].path, slices[i + 1].path
            advice = "One file is a copy of the other: remove it"
            if a == b or not filecmp.cmp(a, b, shallow=False):
                advice = "If there are several phases or reconstructions, give a folder with only one of them"
            raise ValueError(f"two slices at the same position ({along[i]:.2f} mm): {pair}. {advice}")
        if abs(gap - typical) > max(0.1 * typical, 0.02):
            missing = round(gap / typical) - 1
            if missing > 0 and abs(gap / typical - missing - 1) < 0.1:
                raise ValueError(
                    f"{missing} missing slices: {gap:.2f} mm between {pair}, elsewhere {typical:.2f} mm. "
                    "Copy or export the series again"
                )
            raise ValueError(f"uneven slices: {gap:.2f} mm between {pair}, elsewhere {typical:.2f} mm. {even}")
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    drift = np.abs(positions - positions[0] - np.arange(len(positions))[:, None] * step).max(axis=1)
    if drift.max() > max(0.5, 0.5 * typical):
        worst = slices[int(drift.argmax())]
        raise ValueError(
            f"{worst.name}: the slices do not lie on one line, this one up to {drift.max():.2f} mm beside it. {even}"
        )
    if drift.max() > DRIFT_MM:
        return step, [f"uneven slices: they lie up to {drift.max():.2f} mm from where even ones would"]
    return step, []
