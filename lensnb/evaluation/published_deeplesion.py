"""Published sensitivities on DeepLesion's official test set of key slices, as fractions, each with source and protocol.

Only what was read in the source that is named. The lesions that nobody marked on these slices count as false positives
in all of them; `key_slices.lesions_among_false_positives` says what that does to such numbers.
"""

import math

import pandas as pd

from lensnb.evaluation.key_slices import RATES

# protocols
LOG = "official test split without noisy lesions: 4,817 slices, 4,912 lesions; IoU >= 0.5, inclusive boxes"
LOG_MULAN = "official test split without noisy lesions, 4,817 slices; IoU >= 0.5, inclusive boxes"
MELD_3 = "the partially labelled key-slice test set; MELD does not print the IoU"
ABSTRACT = "official key-slice test set; only the abstract was read"
LOGS_3DCE = "log of the authors' code: rsummers11/CADLab, lesion_detector_3DCE"
LOGS_MULAN = "log of the authors' code: rsummers11/CADLab, MULAN_universal_lesion_analysis"
TABLE_3 = "MELD, Table 3"

# system, year, sensitivities at .5, 1, 2, 4, 8 and 16 false positives an image as far as they are printed, the average
# of the first four as printed (None: not printed, so computed here, where there are four)
_ROWS = [
    ("Faster R-CNN, 3 slices", 2018, (0.5690, 0.6726, 0.7557, 0.8162, 0.8583, 0.8874), None, LOGS_3DCE, LOG),
    ("R-FCN", 2018, (0.5570, 0.6726, 0.7537, 0.8221, 0.8626, 0.8919), None, LOGS_3DCE, LOG),
    ("improved R-FCN, 3 slices", 2018, (0.5649, 0.6765, 0.7689, 0.8276, 0.8703, 0.8982), None, LOGS_3DCE, LOG),
    ("3DCE, 9 slices", 2018, (0.5932, 0.7068, 0.7909, 0.8434, 0.8781, 0.8962), None, LOGS_3DCE, LOG),
    ("3DCE, 27 slices", 2018, (0.6248, 0.7337, 0.8070, 0.8565, 0.8909, 0.9106), None, LOGS_3DCE, LOG),
    ("ULDor", 2019, (0.529, 0.648, 0.748, 0.844), 0.692, TABLE_3, MELD_3),
    ("Domain-attentive universal detector", 2019, (math.nan, math.nan, math.nan, 0.873), math.nan, TABLE_3, MELD_3),
    ("Volumetric attention", 2019, (0.691, 0.779, 0.838, 0.875), 0.796, TABLE_3, MELD_3),
    ("MVP-Net", 2019, (0.738, 0.818, 0.876, 0.913), 0.836, TABLE_3, MELD_3),
    ("MULAN without tags", 2019, (0.761, 0.825, 0.875, 0.909), 0.843, TABLE_3, MELD_3),
    ("MULAN with 171 tags", 2019, (0.761, 0.837, 0.888, 0.923), 0.852, TABLE_3, MELD_3),
    ("MULAN, no extra features", 2019, (0.7347, 0.8208, 0.8756, 0.9141, 0.9414, 0.9507), 0.8363, LOGS_MULAN, LOG_MULAN),
    ("MULAN, box and patient", 2019, (0.7612, 0.8369, 0.8876, 0.9230, 0.9471, 0.9564), 0.8522, LOGS_MULAN, LOG_MULAN),
    ("MULAN, box, z and patient", 2019, (0.7732, 0.8439, 0.8899, 0.9222, 0.9452, 0.9524), 0.8573, LOGS_MULAN,
     LOG_MULAN),
    ("MELD", 2020, (0.778, 0.848, 0.890, 0.918), 0.859, TABLE_3, MELD_3),
    ("MELD + MAM + NRM", 2020, (0.786, 0.855, 0.896, 0.925), 0.866, TABLE_3, MELD_3),
    ("DKMA-ULD", 2021, (), 0.872, "its abstract, arXiv 2203.06886", ABSTRACT),
    ("NIH ensemble", 2021, (math.nan, math.nan, math.nan, 0.917), math.nan, "its abstract, arXiv 2111.04886", ABSTRACT),
]  # fmt: skip


def _row(system: str, year: int, printed: tuple[float, ...], average: float | None, source: str, protocol: str) -> dict:
    values = [*printed, *[math.nan] * (len(RATES) - len(printed))]
    named = {f"fp_{rate:g}": value for rate, value in zip(RATES, values, strict=True)}
    average = sum(printed[:4]) / 4 if average is None else average
    return {"system": system, "year": year, **named, "average": average, "source": source, "protocol": protocol}


# a row for each system: system, year, fp_0.5 to fp_16, average (NaN where nothing is printed), source, protocol
KEY_SLICES = pd.DataFrame([_row(*row) for row in _ROWS])

# what is printed at other rates: system, false positives an image, sensitivity, source. 3DCE's code trains such a
# network, too ("Faster R-CNN, 3 slices" above), by another schedule
AT_OTHER_RATES = pd.DataFrame(
    [
        ("DeepLesion's Faster R-CNN", 3.0, 0.7731, "DeepLesion, Secs. 1 and 4.2"),
        ("DeepLesion's Faster R-CNN", 5.0, 0.811, "DeepLesion, abstract and Sec. 3"),
    ],
    columns=["system", "fp", "sensitivity", "source"],
)
