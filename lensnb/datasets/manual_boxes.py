"""The manual test set of DeepLesion, read from its pickle without running what a pickle could run."""

import pickle
from pathlib import Path

import numpy as np

from lensnb.datasets import UNIVERSAL
from lensnb.files import require_file
from lensnb.files.reasons import reason_of

MANUAL_FILE = f"{UNIVERSAL}/DeepLesion_manual_1K_test_release.pkl"  # below the folder of the raw data
FARTHEST = 1e9  # pixels or slices from the first one
# what a pickled numeric array consists of, under the names of old and of new numpy
ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits containers, numbers, text and numpy arrays; refuses every other name before it is imported."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("_codecs", "encode"):
            return _latin1_bytes
        if (module, name) in {("__builtin__", "bytes"), ("builtins", "bytes")}:
            return _no_bytes
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}; only numpy arrays are admitted")
        return super().find_class(module, name)


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """The one use of _codecs.encode in array pickles of protocols 0 to 2: an array's bytes, spelt as text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks to encode text as {encoding}; only numpy arrays are admitted")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How an empty array's bytes are spelt in the same protocols."""
    return b""


def load_arrays(path: Path | str) -> object:
    """Read a pickle of containers and numpy arrays.

    Raises FileNotFoundError, or ValueError that names the file if it is broken or asks for anything else:
    such a pickle could run any program, so nothing of it is executed.
    """
    path = require_file(path)
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(file).load()
    except Exception as error:  # a broken pickle raises almost anything, from EOFError to KeyError
        raise ValueError(f"{path} is not a pickle of numpy arrays: {reason_of(error)}") from error


def load_manual_boxes(path: Path | str) -> dict[str, dict[str, np.ndarray]]:
    """Read manual 3D boxes: split -> sub-volume -> (n, 6) float64 of x1, y1, z1, x2, y2, z2.

    x and y are 0-based pixels of the original slices, z1 and z2 absolute DeepLesion slice numbers, both
    inside the lesion. A sub-volume without lesions has shape (0, 6). Raises ValueError naming file and
    sub-volume if the structure differs, a number is not finite or a box is inverted.
    """
    content = load_arrays(path)
    if not isinstance(content, dict) or not all(isinstance(volumes, dict) for volumes in content.values()):
        raise ValueError(f"{path} should hold a dictionary split -> sub-volume -> boxes")
    return {
        str(split): {str(volume): _check_boxes(boxes, path, volume) for volume, boxes in volumes.items()}
        for split, volumes in content.items()
    }


def _check_boxes(boxes: object, path: Path | str, volume: object) -> np.ndarray:
    where = f"{path}, sub-volume {volume}"
    try:
        if np.asarray(boxes).dtype.kind not in "iufO":  # True would be 1, "7" a number
            raise TypeError
        boxes = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: the boxes are not numbers") from error
    if boxes.size == 0:
        return np.zeros((0, 6))
    if boxes.ndim != 2 or boxes.shape[1] != 6:
        raise ValueError(f"{where}: boxes have shape {boxes.shape}, expected (n, 6): x1, y1, z1, x2, y2, z2")
    if not np.isfinite(boxes).all():
        raise ValueError(f"{where}: a coordinate is not finite")
    if np.abs(boxes).max() > FARTHEST:
        raise ValueError(f"{where}: a coordinate lies outside every image")
    if (boxes[:, :3] > boxes[:, 3:]).any():
        raise ValueError(f"{where}: a box ends before it begins (x1 > x2, y1 > y2 or z1 > z2)")
    return boxes
