"""A slider to leaf through a volume, for readers with a live kernel. Pictures never depend on it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lensnb.boxes import boxes_on_slice
from lensnb.show.plots import WINDOWS, draw_slice


def leaf_through(hu: np.ndarray, boxes: pd.DataFrame | None = None, title: str = "", colour_by: str = "source") -> None:
    """Show a volume (z, y, x) in HU slice by slice, with a slider for the slice and a menu for the window.

    `boxes` have a column z, or z1 and z2 for 3D boxes, and `colour_by`; each slice shows its own.
    """
    from ipywidgets import Dropdown, IntSlider, interact

    def draw(z: int, window: str) -> None:
        fig, ax = plt.subplots(figsize=(6, 5), layout="constrained")
        here = None if boxes is None else boxes_on_slice(boxes, z)
        draw_slice(ax, hu[z], here, colour_by, window, f"{title}, slice {z}")
        plt.show()

    slider = IntSlider(value=len(hu) // 2, min=0, max=len(hu) - 1, description="slice", continuous_update=False)
    interact(draw, z=slider, window=Dropdown(options=list(WINDOWS), description="window"))
