"""Pictures can be read: no text is cut off or drowns in its background, and the window shows what the boxes mean."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import box

from lensnb.show import charts, lesanet_charts, plots

matplotlib.use("agg")


def test_titles_and_texts_of_lesanets_sheets_are_not_cut(slice_hu):
    """Cards and neighbours around square patches, with one line of text and with as many as there can be."""
    panel = {"hu": slice_hu[:, :40], "title": "dl00001", "boxes": pd.DataFrame([box(1, 1, 5, 5, source="annotated")])}
    sheets = [
        lesanet_charts.neighbour_sheet([[(panel, "\n".join(["right upper lobe"] * lines))] * 2] * 2) for lines in (1, 5)
    ]
    sheets += [lesanet_charts.label_cards([(panel, [("TP", "lung 0.90")] * 11)] * 4, columns=2)]
    for fig in sheets:
        fig.canvas.draw()
        inside = fig.bbox.padded(0.5)
        for text in (text for ax in fig.axes for text in (ax.title, *ax.texts) if text.get_text()):
            bounds = text.get_window_extent()
            assert inside.contains(*bounds.min) and inside.contains(*bounds.max), text.get_text()
        plt.close(fig)


def test_contrast_by_hand():
    """Black on white is 21 by definition; #777777 on white is the well-known 4.48 that just fails."""
    assert plots.contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert plots.contrast("#FFFFFF", "#777777") == pytest.approx(4.48, abs=0.005)
    assert plots.text_on("#000000") == "white" and plots.text_on("#F0E442") == "black"


def test_small_texts_can_be_read_on_what_they_stand_on():
    """4.5 to 1 for the labels on dark cards and the values in bars, 3 to 1 for the legend's lines."""
    for colour in plots.OUTCOME_COLOURS.values():
        assert plots.contrast(colour, lesanet_charts.DARK) >= 4.5
        assert plots.contrast(colour, plots.LEGEND) >= 3
    for colour in (*charts.ROW_COLOURS.values(), *plots.DATASET_COLOURS.values()):
        assert plots.contrast(plots.text_on(colour), colour) >= 4.5


def test_what_the_afp_is_told_is_drawn_in_the_window_of_the_boxes(slice_hu):
    """A box in air, that is in lung, asks for the lung's window, whose name stands in the corner of both pictures."""
    labels = np.zeros((len(slice_hu) // 4, slice_hu.shape[1] // 4), int)
    fig = charts.target_chart(slice_hu, pd.DataFrame([box(1, 32, 6, 37, source="annotated")]), labels, stride=4)
    assert ["lung window" in [text.get_text() for text in ax.texts] for ax in fig.axes] == [True, True]
    plt.close(fig)
