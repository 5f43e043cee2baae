"""From label masks to lesions and their boxes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from lensnb.ct.grid_shapes import Segment
from lensnb.ct.volume import CT


def whole_labels(labels: np.ndarray, path: Path) -> np.ndarray:
    """A label image as integers; some writers store them as floats. ValueError if they are no whole numbers."""
    if labels.dtype.kind in "iu":
        return labels
    if labels.dtype.kind != "f":
        raise ValueError(f"{path} holds {labels.dtype} values, no labels")
    rounded = np.rint(labels)
    if not (np.abs(labels - rounded) < 1e-3).all():  # false for nan, too
        raise ValueError(f"{path}: labels that are no whole numbers")
    return rounded.astype(np.int32)


def mask_boxes(instances: np.ndarray, name: Callable[[int], str]) -> list[list]:
    """Boxes [name(id), z, x1, y1, x2, y2] of every instance on every slice it touches.

    `instances`: integers (z, y, x), 0 is background. Boxes reach to the outer edges of the outer pixels.
    """
    return segment_boxes(segments(instances, name))


def segments(instances: np.ndarray, name: Callable[[int], str]) -> list[Segment]:
    """Every instance of integers (z, y, x), 0 is background, in the order of their ids, with the name name(id)."""
    regions = enumerate(ndimage.find_objects(instances), start=1)
    return [
        Segment(name(instance), tuple(axis.start for axis in region), instances[region] == instance)
        for instance, region in regions
        if region is not None
    ]


def segment_boxes(found: list[Segment]) -> list[list]:
    """The boxes of `mask_boxes`."""
    boxes = []
    for segment in found:
        mask, (first, top, left) = segment.voxels, segment.corner
        for z in np.flatnonzero(mask.any(axis=(1, 2))):
            y, x = np.flatnonzero(mask[z].any(axis=1)), np.flatnonzero(mask[z].any(axis=0))
            box = [left + x[0] - 0.5, top + y[0] - 0.5, left + x[-1] + 0.5, top + y[-1] + 0.5]
            boxes.append([segment.lesion, first + int(z), *map(float, box)])
    return boxes


def align_mask(mask: np.ndarray, mask_to_mm: np.ndarray, ct: CT) -> np.ndarray | None:
    """The mask in the voxel order of the CT, through both matrices; None if the two grids do not coincide.

    Axes may be permuted and flipped against each other; positions must agree to half a voxel.
    """
    to_ct = np.linalg.inv(ct.index_to_mm) @ mask_to_mm
    if not np.isfinite(to_ct).all():
        return None
    axes = np.rint(to_ct[:3, :3]).astype(int)
    if not (np.abs(axes).sum(axis=0) == 1).all() or not (np.abs(axes).sum(axis=1) == 1).all():
        return None
    source = np.abs(axes).argmax(axis=1)  # CT axis -> mask axis, in (x, y, z)
    aligned = np.transpose(mask, [2 - source[2], 2 - source[1], 2 - source[0]])
    aligned = aligned[tuple(slice(None, None, int(axes[a, source[a]])) for a in (2, 1, 0))]
    if aligned.shape != ct.hu.shape:
        return None
    size = np.array(mask.shape[::-1])
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in size], indexing="ij")).reshape(3, -1).T
    exact = corners @ to_ct[:3, :3].T + to_ct[:3, 3]
    expected = np.empty_like(exact)
    for a in range(3):
        ours = corners[:, source[a]]
        expected[:, a] = ours if axes[a, source[a]] > 0 else size[source[a]] - 1 - ours
    return aligned if np.abs(exact - expected).max() <= 0.5 else None
