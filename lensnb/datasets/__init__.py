"""One reader per dataset, for the files as their makers publish them.

Each module has the same two functions:

find(root) -> table, one row per CT volume that the dataset's own lists name: dataset, patient, study, series,
    volume, split (empty where the dataset has none of its own), path, scope (what its labels cover),
    annotations (what `read` needs of the label tables), problem (why the volume can not be used, or empty).
read(root, row) -> (CT, boxes): one such volume, and its boxes in ORIGINAL index coordinates, one row per lesion
    and slice: lesion, z, x1, y1, x2, y2. Boxes are continuous pixel-centre coordinates: a mask of the single
    pixel 7 reaches from 6.5 to 7.5.
"""

FOUND = ["dataset", "patient", "study", "series", "volume", "split", "path", "scope"] + ["annotations", "problem"]
SLICE_BOXES = ["lesion", "z", "x1", "y1", "x2", "y2"]
