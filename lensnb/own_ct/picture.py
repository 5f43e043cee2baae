"""The picture of what was found in a CT: the best detections on their slices."""

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lensnb.boxes import BOX3D
from lensnb.ct.grid import grid_to_mm, mm_to_grid, normalise
from lensnb.ct.volume import CT
from lensnb.own_ct.scan import Scan
from lensnb.show import examples, plots

IN_PICTURE = 12  # the best detections; the table has all
PICTURE_MM = 1.0  # pixels of the picture, where the network's grid is coarser


def overlay(ct: CT, scan: Scan, warning: str = "") -> Figure:
    """The best detections on the slices of their best scores, numbered as in the table, coloured by expert.

    The CT is brought to finer pixels than the network's and the boxes get there through patient millimetres.
    """
    best = scan.lesions.head(IN_PICTURE)
    side = min(PICTURE_MM, *scan.geometry.spacing_mm[:2])
    hu, geometry = normalise(ct, (side, side, scan.geometry.spacing_mm[2]))
    corners = grid_to_mm(best[BOX3D].to_numpy(dtype=float).reshape(-1, 3), scan.geometry)
    boxes = mm_to_grid(corners, geometry).reshape(-1, 2, 3)
    shown = best.assign(x1=boxes[:, 0, 0], y1=boxes[:, 0, 1], x2=boxes[:, 1, 0], y2=boxes[:, 1, 1])
    panels = []
    for z in best["z"].drop_duplicates().astype(int):
        here = shown[(shown["z1"] <= z) & (shown["z2"] >= z)]
        z_mm = grid_to_mm([[scan.hu.shape[2] / 2, scan.hu.shape[1] / 2, z]], scan.geometry)[0, 2]
        title = f"z = {z_mm:.1f} mm"
        panels.append({"hu": hu[z], "boxes": here, "window": examples.window_for(hu[z], here), "title": title})
    if not panels:
        panels = [{"hu": hu[len(hu) // 2], "title": "nothing was found; the middle slice"}]
    figure = plots.slice_sheet(panels, columns=min(3, len(panels)), colour_by="expert")
    halo = withStroke(linewidth=1.6, foreground="black")
    for ax, panel in zip(figure.axes, panels, strict=False):
        for number, box in panel.get("boxes", shown[:0]).iterrows():
            label = {"color": plots.COLOURS[box["expert"]], "fontsize": 7, "va": "bottom", "path_effects": [halo]}
            ax.text(box["x1"], box["y1"] - 1, f"{number + 1}: {box['score']:.2f}", **label)
    if warning:
        figure.suptitle(f"Not for clinical use: {warning}", fontsize=7, weight="bold", wrap=True)
    return figure
