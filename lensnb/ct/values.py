"""Whether the values of a CT are HU: offsets that were not subtracted, numbers of another kind, an image without one.

Air is -1000 HU, water 0, dense bone 2000, and what pads an image -1024 to -3024. Metal reaches 30710 on an extended
scale. A file tells none of this; the voxels do.
"""

import numpy as np

TISSUE_HU = (-1100, 3100)  # from air, with its noise, to the end of the usual scale
FEW = 0.05  # less than this share of tissue, air included, is no CT: padding around a round image is a fifth of it
BELOW_HU, ABOVE_HU = -4096, 31743  # no padding is lower, no metal higher
OFFSET_HU = 1024


def check_hu(hu: np.ndarray, where: object) -> list[str]:
    """Notes on the values of a whole volume, int16 (z, y, x); `where` is the file or folder, for errors.

    Values that did not fit int16 count as beyond any HU. Raises ValueError if next to none is in the range
    of HU, or if the values are those of a CT with 1024 added.
    """
    low, high = int(hu.min()), int(hu.max())
    advice = "Give the CT in HU, with its offset and scale applied"
    tissue = share(hu, *TISSUE_HU)
    if tissue < FEW:
        raise ValueError(
            f"{where}: the values, {low} to {high}, are no HU: {tissue:.0%} lie between {TISSUE_HU[0]} and "
            f"{TISSUE_HU[1]}. {advice}"
        )
    if low == high:
        return [f"no image: every voxel is {low}"]
    notes = []
    if low >= 0 and high > OFFSET_HU:
        # without an offset, nothing in a patient but bone is denser than 200, and air is not 0
        if share(hu, 0, 200) > 0.1 and share(hu, OFFSET_HU - 150, OFFSET_HU + 150) > 0.1:
            raise ValueError(f"{where}: the values, {low} to {high}, look like HU + {OFFSET_HU}, not HU. {advice}")
        notes.append(f"no value below 0: the values reach from {low} to {high}, where air would be -1000 HU")
    if low < BELOW_HU or high > ABOVE_HU:
        beyond = round((1 - share(hu, BELOW_HU, ABOVE_HU)) * hu.size)
        notes.append(
            f"values that are no HU: {beyond} voxels beyond {BELOW_HU} to {ABOVE_HU} are taken for air or metal"
        )
    return notes


def share(hu: np.ndarray, low: int, high: int) -> float:
    """The share of values from `low` to `high`, both included; slice by slice, to need no copy of a big volume."""
    return sum(np.count_nonzero((one >= low) & (one <= high)) for one in hu) / hu.size
