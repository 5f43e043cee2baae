"""Pictures: what they show is right, and they are the same each time."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import box
from matplotlib.colors import to_rgb, to_rgba

from lensnb.boxes import BOX, BOX3D, boxes_on_slice
from lensnb.datasets import DATASETS, NAMES
from lensnb.detection import scoring
from lensnb.evaluation import froc, luna
from lensnb.evaluation.outcomes import judge, kind_under
from lensnb.mining.strategies import SOURCES
from lensnb.show import charts, examples, plots
from lensnb.show.session import start

matplotlib.use("agg")


def test_windows_map_their_ends_to_black_and_white():
    for name, (low, high) in plots.WINDOWS.items():
        grey = plots.to_grey(np.array([low - 500, low, (low + high) / 2, high, high + 500]), name)
        np.testing.assert_allclose(grey, [0, 0, 0.5, 1, 1])
    with pytest.raises(ValueError, match="soft tissue, lung, bone"):
        plots.to_grey(np.zeros(2), "brain")


def test_boxes_are_drawn_where_they_are_in_the_colour_of_their_meaning(slice_hu):
    _, ax = plt.subplots()
    table = pd.DataFrame([box(12, 11, 20, 25, source="annotated"), box(30, 12, 40, 22, source="uncertain")])
    plots.draw_slice(ax, slice_hu, table, window="lung")
    drawn = [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in ax.patches]
    assert drawn == [(12, 11, 8, 14), (30, 12, 10, 10)]
    assert to_rgb(ax.patches[0].get_edgecolor()) == pytest.approx(to_rgb(plots.SOURCE_COLOURS["annotated"]))
    assert ax.patches[0].get_linestyle() != ax.patches[1].get_linestyle()
    assert "lung window" in [text.get_text() for text in ax.texts]
    plt.close("all")


def test_every_dataset_and_source_has_a_colour_of_its_own():
    assert tuple(plots.DATASET_COLOURS) == NAMES
    assert set(SOURCES) <= set(plots.SOURCE_COLOURS)
    for palette in (plots.DATASET_COLOURS, plots.SOURCE_COLOURS, plots.OUTCOME_COLOURS):
        assert len(set(palette.values())) == len(palette)


def test_detections_are_named_after_the_lesion_they_lie_on():
    corners = dict(zip(BOX3D, (0, 0, 0, 9, 9, 3), strict=True))
    lesions = pd.DataFrame([corners | {"volume": "v", "type": "liver"}, corners | {"volume": "w", "type": "node"}])
    half = corners | {"x1": 5, "x2": 14}  # half of it lies on the lesion
    rows = [("v", corners), ("v", half), ("v", half | {"x1": 8, "x2": 17}), ("w", half), ("x", corners)]
    found = pd.DataFrame([box | {"volume": volume} for volume, box in rows], index=[5, 4, 3, 2, 1])
    assert kind_under(found, lesions).tolist() == ["liver", "liver", "no lesion", "node", "no lesion"]


def test_the_luna_chart_reads_the_curve_at_its_seven_points():
    columns = ["seriesuid", *luna.POSITION, "diameter_mm"]
    nodules = pd.DataFrame([("s", 0, 0, 0, 10.0), ("s", 90, 0, 0, 10.0)], columns=columns)
    marks = pd.DataFrame([("s", 0, 0, 0, 0.9)], columns=[*columns[:-1], "probability"])
    matches = luna.match(nodules, nodules[:0], ["s"], marks)
    (ax,) = charts.luna_chart({"LUNA16 expert": matches, "all fused": matches}).axes
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(points) == 2 and points[0].get_ydata().tolist() == [0.5] * 7
    assert points[0].get_xdata().tolist() == list(froc.RATES)
    assert [text.get_text() for text in ax.get_legend().get_texts()][0] == "LUNA16 expert  50.0"
    plt.close("all")


def test_a_missed_lesion_shows_no_score(slice_hu):
    _, ax = plt.subplots()
    table = pd.DataFrame([box(1, 1, 5, 5, outcome="TP", score=0.75), box(9, 9, 12, 12, outcome="FN", score=0.0)])
    plots.draw_slice(ax, slice_hu, table, colour_by="outcome", scores=True)
    assert [text.get_text() for text in ax.texts][1:] == ["0.75"]
    plt.close("all")


def test_the_same_figure_gives_the_same_bytes(slice_hu, tmp_path):
    panels = [{"hu": slice_hu, "boxes": pd.DataFrame([box(12, 11, 20, 25, source="truth")]), "title": "one"}]
    first = plots.save(plots.slice_sheet(panels, columns=2), tmp_path / "a.png")
    second = plots.save(plots.slice_sheet(panels, columns=2), tmp_path / "b.png")
    assert first == second == (tmp_path / "b.png").read_bytes()
    assert first.startswith(b"\x89PNG") and plt.get_fignums() == []


def test_a_sheet_without_panels_is_still_a_figure(tmp_path):
    assert plots.save(plots.slice_sheet([None], columns=3), tmp_path / "none.png")


def test_crop_moves_boxes_with_the_picture(slice_hu):
    table = pd.DataFrame([box(12, 11, 20, 25), box(50, 35, 58, 39)])
    patch, moved = plots.crop(slice_hu, table, (16, 18), 20)
    assert patch.shape == (20, 20)
    assert moved[BOX].to_numpy().tolist() == [[6, 3, 14, 17]]  # the square starts at (6, 8); the other box is outside
    corner, _ = plots.crop(slice_hu, table, (59, 39), 20)
    assert corner.shape == (20, 20)  # shifted back inside
    np.testing.assert_array_equal(corner, slice_hu[20:40, 40:60])


def test_show_puts_the_alternative_text_beside_the_picture(slice_hu, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *things, **more: shown.append((things, more)))
    plots.show(plots.slice_sheet([{"hu": slice_hu}], 1), tmp_path / "x.png", caption="A caption", alt="Words")
    (bundle,), options = shown[0]
    assert options["metadata"]["image/png"]["alt"] == "Words" and bundle["text/plain"] == "Words"
    assert shown[1][0][0].data == "*A caption*"


def test_judge_tells_right_wrong_and_missed():
    truth = pd.DataFrame([("v", 10, 10, 2, 19, 19, 5), ("v", 40, 40, 2, 49, 49, 5)], columns=["volume", *BOX3D])
    found = pd.DataFrame(
        [("v", 10, 10, 2, 19, 19, 5, 0.9), ("v", 70, 70, 2, 79, 79, 5, 0.8), ("w", 1, 1, 1, 5, 5, 2, 0.7)],
        columns=["volume", *BOX3D, "score"],
    )
    judged = judge(found, truth)
    assert judged.outcome.tolist() == ["TP", "FP", "FN", "FP"]
    assert judged[judged.outcome == "FN"][BOX3D].to_numpy().tolist() == [[40, 40, 2, 49, 49, 5]]


def test_most_telling_is_where_one_expert_gains():
    missed = pd.DataFrame(
        [(v, 10, 10, 2, 19, 19, 6, "FN", 0.0) for v in ("v", "w")], columns=["volume", *BOX3D, "outcome", "score"]
    )
    judged = {"worse": missed, "better": missed[missed.volume == "w"]}
    assert examples.most_telling(judged, "better", "worse") == [("v", 4)]


def test_busiest_slices_are_of_different_patients():
    volumes = pd.DataFrame({"patient": ["p", "p", "q"]}, index=["v1", "v2", "w"])
    table = pd.DataFrame({"volume": ["v1"] * 3 + ["v2"] * 2 + ["w"], "z": [4, 4, 4, 5, 5, 6]})
    assert examples.busiest_slices(table, 5, volumes) == [("v1", 4), ("w", 6)]


def test_window_follows_what_surrounds_the_boxes(slice_hu):
    in_tissue, in_air = pd.DataFrame([box(20, 15, 28, 22)]), pd.DataFrame([box(1, 32, 6, 37)])
    assert examples.window_for(slice_hu, in_tissue) == "soft tissue"
    assert examples.window_for(slice_hu, in_air) == "lung"
    assert examples.window_for(slice_hu, in_tissue.iloc[:0]) == "soft tissue"
    assert examples.window_for(slice_hu, pd.concat([in_tissue, in_air])) == plots.BOTH


def test_the_window_for_both_shows_nodules_and_liver_lesions():
    """Each step of HU is a step of grey; 40 HU in the liver and a nodule in the lung are well apart."""
    hu = np.arange(-1000, 241)
    grey = plots.to_grey(hu, plots.BOTH)
    assert (np.diff(grey) > 0).all() and grey[0] == 0 and grey[-1] == 1
    liver, nodule = plots.to_grey(np.array([60, 100]), plots.BOTH), plots.to_grey(np.array([-800, 0]), plots.BOTH)
    assert np.diff(liver) > 0.06 and np.diff(nodule) > 0.4


def test_titles_and_row_labels_are_not_cut(slice_hu):
    """Titles of one and of three lines lie inside the picture, on flat and on high slices."""
    for hu in (slice_hu, slice_hu.T):
        for title in ("one", "one\ntwo\nthree"):
            panels = [{"hu": hu, "title": title, "boxes": pd.DataFrame([box(1, 1, 5, 5, source="annotated")])}] * 6
            fig = plots.slice_sheet(panels, columns=3, rows=("patient 1, slice 3", "patient 2, slice 9"))
            fig.canvas.draw()
            inside = fig.bbox.padded(0.5)
            for ax in fig.axes:
                for text in (ax.title, *ax.texts):
                    bounds = text.get_window_extent()
                    assert inside.contains(*bounds.min) and inside.contains(*bounds.max), (title, text.get_text())
            plt.close(fig)


def test_a_lesion_found_on_other_slices_is_drawn(tmp_path):
    """Of three lesions on a slice one is found there, one on other slices, one is missed."""

    class OneSlice:
        volumes = pd.DataFrame({"dataset": ["DeepLesion"]}, index=["v"])

        def hu(self, volume):
            return np.zeros((9, 60, 60), np.float32)

    columns = ["volume", *BOX3D]
    lesions = pd.DataFrame([("v", 5, 5, 1, 14, 14, 6), ("v", 20, 20, 1, 29, 29, 6), ("v", 40, 40, 1, 49, 49, 6)],
                           columns=columns)  # fmt: skip
    found = pd.DataFrame(
        [("v", 5, 5, 2, 14, 14, 5, 0.9), ("v", 20, 20, 1, 29, 29, 2, 0.8)], columns=[*columns, "score"]
    )
    judged = {"e": judge(found, lesions)}
    (drawn,) = examples.expert_panels(OneSlice(), judged, [("v", 4)], score=0.1, lesions=lesions)
    assert drawn["boxes"].set_index("x1")["outcome"].to_dict() == {5: "TP", 40: "FN", 20: plots.ELSEWHERE}
    (drawn,) = examples.expert_panels(OneSlice(), judged, [("v", 4)], score=0.1)
    assert drawn["boxes"].set_index("x1")["outcome"].to_dict() == {5: "TP", 40: "FN"}
    assert plots.save(plots.slice_sheet([drawn], 1, colour_by="outcome", scores=True), tmp_path / "x.png")


def test_boxes_on_a_slice_in_two_and_three_dimensions():
    flat = pd.DataFrame({"z": [3, 4], "z1": np.nan, "z2": np.nan})
    solid = pd.DataFrame({"z1": [1.0, 5.0], "z2": [3.4, 9.0]})
    assert boxes_on_slice(flat, 4).index.tolist() == [1]
    assert boxes_on_slice(solid, 3).index.tolist() == [0]
    assert boxes_on_slice(solid, 4).empty


def test_sensitivity_by_type_at_one_false_positive():
    lesions = pd.DataFrame(
        [
            ("v", 10, 10, 2, 19, 19, 5, "lung"),
            ("v", 40, 40, 2, 49, 49, 5, "liver"),
            ("w", 10, 10, 2, 19, 19, 5, "lung"),
        ],
        columns=["volume", *BOX3D, "type"],
    )
    right = lesions.assign(score=[0.9, 0.2, 0.8]).drop(columns="type")
    wrong = pd.DataFrame([("v", 70, 70, 2, 75, 75, 5, s) for s in (0.7, 0.6, 0.5)], columns=["volume", *BOX3D, "score"])
    found = pd.concat([right, wrong], ignore_index=True)
    shares = scoring.sensitivity_by("type", found, lesions, ["v", "w"], rate=1.0)
    assert shares.to_dict() == {"liver": 0.0, "lung": 1.0}  # the liver lesion comes after the third false positive
    assert scoring.sensitivity_by("type", found, lesions, ["v", "w"], rate=1.5)["liver"] == 1.0


def test_separation_is_the_area_under_the_roc_curve():
    scores, right = pd.Series([0.9, 0.8, 0.7, 0.1]), pd.Series([True, False, True, False])
    assert scoring.separation(scores, right) == pytest.approx(3 / 4)  # of four pairs, one is in the wrong order
    assert scoring.separation(pd.Series([0.5, 0.5]), pd.Series([True, False])) == pytest.approx(0.5)


def test_best_of_volume_keeps_the_highest_scores():
    found = pd.DataFrame({"volume": ["v", "v", "w", "v"], "score": [0.1, 0.9, 0.2, 0.5]})
    assert scoring.best_of_volume(found, 2).tolist() == [1, 2, 3]


def test_charts_can_be_drawn_and_carry_the_averages(tmp_path):
    truth = {"v": np.array([[10.0, 10, 2, 19, 19, 5]]), "w": np.zeros((0, 6))}
    found = pd.DataFrame([("v", 10, 10, 2, 19, 19, 5, 0.9)], columns=["volume", *BOX3D, "score"])
    result = {"a": froc.evaluate(truth, found, resamples=20)}
    fig = charts.froc_chart(result)
    assert [text.get_text() for text in fig.axes[0].get_legend().get_texts()] == ["a  100.0"]
    assert [text.get_text() for text in fig.axes[1].get_legend().get_texts()] == ["a  36.8"]
    log = pd.DataFrame({"iteration": [20, 40], "center": [2.0, 1.0], "total": [3.0, 1.5]})
    bars = pd.DataFrame({"DeepLesion": [0.4]}, index=["lung"])
    figures = (
        fig,
        charts.average_bars(result),
        charts.loss_curves(log),
        charts.problem_chart(),
        charts.framework_chart(),
    )
    for figure in (*figures, charts.grouped_bars(bars, "share")):
        assert plots.save(figure, tmp_path / "chart.png")


@pytest.mark.parametrize(
    "parameters", [(1, 0, False), ("smoke", "0", False), ("smoke", 0, "true"), ("smoke", True, False)]
)
def test_a_notebook_refuses_parameters_of_the_wrong_type(parameters):
    with pytest.raises(ValueError, match="must be of type"):
        start(*parameters)


def test_bars_by_type_have_a_panel_for_each_table():
    own = pd.DataFrame({"LUNA16": [0.8], "LiTS": [np.nan]}, index=["lung"])
    every = pd.DataFrame({"DeepLesion": [0.5, 0.4], "LUNA16": [0.9, 0.1]}, index=["lung", "liver"])
    fig = charts.bars_by_type({"own": own, "every": every}, "mean score")
    left, right = fig.axes
    assert [ax.get_title() for ax in (left, right)] == ["own", "every"]
    assert sorted(bar.get_height() for bar in right.patches) == [0.1, 0.4, 0.5, 0.9]
    assert {bar.get_facecolor() for bar in right.patches} == {to_rgba(DATASETS[name].colour) for name in every}


def test_calibration_chart_has_a_line_and_steps_for_each_expert():
    free = pd.DataFrame({"score": [0.1, 0.6], "chance": [0.0, 1.0]})
    fig = charts.calibration_chart({"LUNA16": (np.square, free), "LiTS": (np.sqrt, free)})
    lines = fig.axes[0].lines
    assert len(lines) == 5  # the last one is the diagonal
    np.testing.assert_allclose(lines[0].get_ydata(), lines[0].get_xdata() ** 2)
    assert lines[1].get_ydata().tolist() == [0.0, 1.0] and lines[0].get_color() == lines[1].get_color()


def test_sigma_chart_marks_what_was_chosen():
    table = pd.DataFrame({"expert": ["LUNA16"] * 2, "sigma": [0.3, 0.5], "precision": [0.4, 0.7], "recall": [0.6, 0.2]})
    fig = charts.sigma_chart(table, {"LUNA16": 0.5}, 0.6)
    dots = [line.get_xydata().tolist() for ax in fig.axes for line in ax.lines if line.get_marker() == "o"]
    assert dots == [[[0.5, 0.7]], [[0.5, 0.2]]]
    assert charts.sigma_chart(table.iloc[:0], {}, 0.6).axes  # no specialist, nothing to draw
