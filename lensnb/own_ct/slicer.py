"""Markups for 3D Slicer (.mrk.json): written, and read back to check where they point.

Positions are patient millimetres, LPS, as in the schema that the file names. Slicer shows RAS, so in its own window the
first two numbers have the other sign.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.ct.grid import Geometry
from lensnb.files import files_below, read_json

IN_MARKUPS = 50  # the best detections; the table has all
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)
POSITION = ["x_mm", "y_mm", "z_mm"]


def markups(table: pd.DataFrame, sizes_mm: np.ndarray, geometry: Geometry) -> dict:
    """The content of a markups file: a list of the centres, then one box (ROI) for each detection.

    table: lesion, score, x_mm, y_mm, z_mm, long_mm, short_mm (see scan.describe), best first. sizes_mm (n, 3): sides
    of the boxes along the axes of the grid.
    """
    to_mm = geometry.original_to_mm @ geometry.grid_to_original
    axes = to_mm[:3, :3] / np.linalg.norm(to_mm[:3, :3], axis=0)
    # a tilted gantry shears the grid, Slicer's boxes have right angles
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    common = {"coordinateSystem": "LPS", "coordinateUnits": "mm", "locked": True}
    points, boxes = [], []
    for row, size in list(zip(table.to_dict("records"), sizes_mm.round(3).tolist(), strict=True))[:IN_MARKUPS]:
        label = f"{row['lesion']}: {row['score']:.2f}"
        point = {
            "id": str(row["lesion"]),
            "label": label,
            "description": f"box of {row['long_mm']:.1f} x {row['short_mm']:.1f} mm in the axial plane",
            "position": [row[name] for name in POSITION],
            "positionStatus": "defined",
        }
        points.append(point)
        box = {"roiType": "Box", "center": point["position"], "orientation": axes.round(6).ravel().tolist()}
        boxes.append(
            {"type": "ROI", "name": f"lesion {label}", **common, **box, "size": size, "controlPoints": [point]}
        )
    centres = {"type": "Fiducial", "name": "lesions", **common, "controlPoints": points}
    return {"@schema": SCHEMA, "markups": [centres, *boxes]}


def read_markups(path: Path | str) -> pd.DataFrame:
    """The boxes of a markups file: lesion, name, centre (x_mm, y_mm, z_mm; LPS), size_x_mm, size_y_mm, size_z_mm.

    Raises ValueError for a file that is none, or whose list of centres differs from the centres of its boxes.
    """
    content = read_json(Path(path))
    if "markups-schema-v1." not in str(content.get("@schema", "")) or not content.get("markups"):
        raise ValueError(f"{path} is no markups file of 3D Slicer")
    centres, *boxes = content["markups"]
    if any(markup["coordinateSystem"] != "LPS" for markup in (centres, *boxes)):
        raise ValueError(f"{path}: positions are not in LPS")
    listed = [point["position"] for point in centres["controlPoints"]]
    if listed != [box["center"] for box in boxes]:
        raise ValueError(f"{path}: the listed centres are not those of the boxes")
    rows = [
        (int(point["id"]), box["name"], *box["center"], *box["size"])
        for point, box in zip(centres["controlPoints"], boxes, strict=True)
    ]
    return pd.DataFrame(rows, columns=["lesion", "name", *POSITION, *(f"size_{axis}_mm" for axis in "xyz")])


def itk_image(path: Path | str) -> object:
    """The CT as SimpleITK reads it by itself, a second opinion on where its voxels lie.

    Its reader of DICOM series knows no tilted gantry, and only files that lie directly in one folder.
    """
    import SimpleITK as sitk

    path = Path(path)
    if path.is_file():
        return sitk.ReadImage(str(path))
    folders = sorted({file.parent for file in files_below(path)})
    reader = sitk.ImageSeriesReader()
    names = next(filter(None, (reader.GetGDCMSeriesFileNames(str(folder)) for folder in folders)), None)
    if not names:
        raise ValueError(f"SimpleITK finds no DICOM series in {path}")
    reader.SetFileNames(names)
    return reader.Execute()


def itk_positions(image: object, indices: np.ndarray) -> np.ndarray:
    """Patient mm (LPS) of voxel indices (n, 3: x, y, z), by SimpleITK: (n, 3)."""
    points = [image.TransformContinuousIndexToPhysicalPoint(index) for index in np.asarray(indices, float).tolist()]
    return np.array(points).reshape(-1, 3)
