"""What each dataset means (DATASETS), and what its reader must do.

A fifth dataset is one file with a reader, and one entry in DATASETS. A reader reads the files
as their makers publish them. All readers have the same four functions:

find(root) -> table, one row per CT volume that the dataset's own lists name, with the columns FOUND: dataset, patient,
    study, series, volume, split (empty where the dataset has none of its own), path, scope (what its labels cover),
    annotations (what `read` needs of the label tables), problem (why the volume can not be used, or empty), and what
    the lists tell without reading a volume: mask (file of the labels, or empty), lesions (how many are annotated; 0
    where only the masks know) and depth_mm (of the patient from head to feet; 0 where unknown).
read(root, row) -> (CT, boxes): one such volume, and its boxes in ORIGINAL index coordinates, one row per lesion
    and slice: lesion, z, x1, y1, x2, y2. Boxes are continuous pixel-centre coordinates: a mask of the single
    pixel 7 reaches from 6.5 to 7.5.
count(root, found) -> numbers: what the dataset's tables hold, by the names in `Dataset.expected`; usable volumes,
    which `data check` counts itself, need not be among them.
faults(root, usable) -> what is wrong with the files of these rows of `find`, as far as can be told without reading a
    volume: (volume, or empty for the dataset itself; LEFT_OUT, INCOMPLETE or HANDLED; "kind: detail").

Two more are for what some datasets have beyond boxes; the store keeps it where a reader has the function:

read_with_masks(root, row) -> (CT, boxes, segments): as `read`, and each lesion of the mask (ct/grid_shapes.py:Segment).
diameters(row, CT) -> table: the ends of the RECIST diameters in ORIGINAL index coordinates, one row per lesion: lesion,
    z, x1, y1 to x4, y4, the long one first.

Boxes of the readers and of the manual test set are in original pixels and slices; functions whose names or arguments
say `grid` work in the voxels of prepared volumes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOUND = ["dataset", "patient", "study", "series", "volume", "split", "path", "scope", "annotations", "problem",
         "mask", "lesions", "depth_mm"]  # fmt: skip
SLICE_BOXES = ["lesion", "z", "x1", "y1", "x2", "y2"]
LEFT_OUT, INCOMPLETE, HANDLED = "left out", "incomplete", "handled"


@dataclass(frozen=True)
class Dataset:
    """What a dataset means to everything but its reader.

    name: also of its folder among the raw data, and of its expert.
    reader: its module in this room.
    lesions: what its labels cover.
    type: the one type of these lesions, as the phantoms' hidden truth calls it; empty for a universal dataset.
    universal: it has lesions of all types, of which many are not marked, so that its unmarked slices are no negatives;
        else it is of a single type, whose lesions are all marked.
    key_slices_only: a lesion has one box, on its key slice; else one on every slice it touches.
    boxes_from: "diameters", which leave a margin around the lesion, or "masks" or "spheres", which leave none.
    searched: which slices somebody has searched for lesions: all, or those from the first to the last labelled one.
    own_split: its files say what is for training, validation and test; else patients are split 80 to 20 (LENS
        Sec. VI-A).
    numbered_slices: its slices have numbers of their own, and a volume's name ends in those of the first and the last.
    colour: in every figure.
    expected: what its makers say it holds, or what the published files do: what -> number.
    usable: by which name usable volumes are counted; their number is expected to be that of the volumes found if
        `expected` says nothing.
    on_purpose: the problem of volumes that are left out as the authors do, which is no fault of the files.
    notebook: the number of the notebook that needs it, or empty.
    source: where it comes from, in a line. get: the same, with size and licence.
    """

    name: str
    reader: str
    lesions: str
    universal: bool
    key_slices_only: bool
    boxes_from: Literal["diameters", "masks", "spheres"]
    searched: Literal["all slices", "labelled range"]
    own_split: bool
    numbered_slices: bool
    colour: str
    expected: Mapping[str, int]
    usable: str
    source: str
    get: str
    on_purpose: str = ""
    notebook: str = ""
    type: str = ""


_ALL = (
    Dataset(
        name="DeepLesion",
        reader="deeplesion",
        lesions="all lesion types, few of the lesions marked",
        universal=True,
        key_slices_only=True,
        boxes_from="diameters",
        searched="all slices",
        own_split=True,
        numbered_slices=True,
        colour="#56B4E9",
        expected={
            "lesions in DL_info.csv": 32_735,
            "patients": 4_427,
            "studies": 10_594,
            "sub-volumes of the manual test set": 1_000,
            "boxes of the manual test set": 5_447,
            "lesions with text-mined labels": 24_121,
        },
        usable="sub-volumes with images",
        source="the NIH Clinical Center, https://nihcc.app.box.com/v/DeepLesion (225 GB of PNG, DL_info.csv)",
        get="""NIH Clinical Center, https://nihcc.app.box.com/v/DeepLesion: DL_info.csv and Images_png (56
zip files), 225 GB; terms of use on that page. Manual test set: https://github.com/viggin/DeepLesion_manual_test_set,
0.4 MB, no licence stated. Text-mined labels: https://github.com/rsummers11/CADLab (LesaNet), 2 MB, terms there""",
        on_purpose="only possibly noisy lesions",
    ),
    Dataset(
        name="LUNA16",
        reader="luna16",
        lesions="lung nodules",
        type="lung",
        universal=False,
        key_slices_only=False,
        boxes_from="spheres",
        searched="all slices",
        own_split=False,
        numbered_slices=False,
        colour="#E69F00",
        expected={"scans": 888, "nodules": 1_186, "excluded findings": 35_192},
        usable="scans",
        source="https://luna16.grand-challenge.org (subset0 to subset9, 888 scans, and the csv files; CC BY 4.0)",
        get="""https://luna16.grand-challenge.org/Download: subset0 to subset9 and the csv files (CSVFILES), about
115 GB unpacked; CC BY 4.0, its scans CC BY 3.0 (LIDC-IDRI)""",
        notebook="12",
    ),
    Dataset(
        name="LiTS",
        reader="lits",
        lesions="liver tumours",
        type="liver",
        universal=False,
        key_slices_only=False,
        boxes_from="masks",
        searched="all slices",
        own_split=False,
        numbered_slices=False,
        colour="#CC79A7",
        expected={"volumes with labels": 131},
        usable="volumes with labels",
        source="https://competitions.codalab.org/competitions/17094 (131 training volumes; CC BY-NC-SA 4.0)",
        get="""https://competitions.codalab.org/competitions/17094: Training_Batch1 and Training_Batch2, about 45 GB
unpacked; CC BY-NC-SA 4.0""",
    ),
    Dataset(
        name="NIH-LN",
        reader="nih_ln",
        lesions="lymph nodes",
        type="node",
        universal=False,
        key_slices_only=False,
        boxes_from="masks",
        # a case lists the nodes of its own region, mediastinum or abdomen; above and below may lie others
        searched="labelled range",
        own_split=False,
        numbered_slices=False,
        colour="#009E73",
        expected={"cases with masks": 176, "annotated nodes": 983},
        usable="cases with masks",
        source="https://www.cancerimagingarchive.net/collection/ct-lymph-nodes (176 cases, and MED_ABD_LYMPH_MASKS; "
        "CC BY 3.0)",
        get="""https://www.cancerimagingarchive.net/collection/ct-lymph-nodes: the images (DICOM, about 58 GB) and the
zip files MED_ABD_LYMPH_MASKS and MED_ABD_LYMPH_ANNOTATIONS; CC BY 3.0""",
        notebook="13",
    ),
)
DATASETS = {dataset.name: dataset for dataset in _ALL}  # in the order of the experts, the universal one first
NAMES = tuple(DATASETS)
UNIVERSAL = NAMES[0]  # every experiment learns from it and is tested on it
SINGLE_TYPE = tuple(name for name in NAMES if not DATASETS[name].universal)


def present(folder: Path) -> tuple[str, ...]:
    """Those of the datasets that lie in `folder`, each in a folder of its own, in the order of the experts."""
    return tuple(name for name in NAMES if (folder / name).is_dir())
