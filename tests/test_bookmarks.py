"""Marks as the three forms store them, which of them are RECIST pairs, and what becomes of boxes: all by hand."""

from pathlib import Path

import drawn
import numpy as np
import pandas as pd
import pytest
from drawn import CROSS, HEADER, annotation, bidirectional, content, graphic, group, number, report, scoord, state, text

from lensnb.bookmarks import noise
from lensnb.bookmarks.export import age, ranges, sex, window
from lensnb.bookmarks.judging import forms, match, merges, rules
from lensnb.bookmarks.marks import MM, PIXEL, follow_up
from lensnb.bookmarks.merge import MEAN, merge
from lensnb.bookmarks.names import number as number_series
from lensnb.bookmarks.presentation_states import read_presentation_state
from lensnb.bookmarks.recist import ENDS_DRAWN, ENDS_MM, bookmarks_of, crossing, hull_box
from lensnb.bookmarks.report import what_became
from lensnb.bookmarks.series import Series
from lensnb.bookmarks.structured_reports import read_report
from lensnb.bookmarks.vertices_csv import read_vertices
from lensnb.ct.grid_shapes import DIAMETERS

HERE = Path("file.dcm")
IMAGE = drawn.image("1.2.3")


def of_state(*annotations, **more) -> pd.DataFrame:
    return bookmarks_of(read_presentation_state(state(*annotations, **more), HERE))


def of_report(*items) -> pd.DataFrame:
    return bookmarks_of(read_report(report(*items), HERE))


def drawn_ends(bookmarks: pd.DataFrame, row: int = 0) -> list:
    return bookmarks.loc[row, ENDS_DRAWN].astype(float).round(4).tolist()


CROSS_AS_INDEX = [
    9.5,
    19.5,
    29.5,
    19.5,
    17.5,
    11.5,
    17.5,
    25.5,
]  # the first pixel's centre is .5, .5 in the file, 0 here


# two lines


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([[4, -3], [4, 3]], (0, 0, False)),
        ([[4, 0], [7, 3]], (45, 0, False)),  # begins on the first line
        ([[4, 2], [4, 8]], (0, 0.2, False)),  # 2 px above a line of 10
        ([[13, 0], [13, 6]], (0, 0.3, True)),
        ([[0, 0], [0, 6]], (0, 0, True)),  # an angle
        ([[5, 0], [5, 0]], (0, 0, False)),  # a double click
        ([[2, 1], [8, 1]], (90, 0.1, False)),  # beside one another
    ],
)
def test_crossing_by_hand(second, expected):
    off, gap, end_to_end = crossing(np.array([[0, 0], [10, 0], *second], dtype=float))
    assert (off, gap) == (pytest.approx(expected[0]), pytest.approx(expected[1])) and end_to_end == expected[2]


def test_the_gap_is_that_of_random_segments_looked_at_point_by_point():
    rng = np.random.default_rng(0)
    at = np.linspace(0, 1, 200)[:, None]
    for dimensions in (2, 3):
        for ends in rng.uniform(-5, 5, (20, 4, dimensions)):
            one, other = (ends[k] + at * (ends[k + 1] - ends[k]) for k in (0, 2))
            least = np.linalg.norm(one[:, None] - other[None], axis=2).min()
            longer = max(np.linalg.norm(ends[1] - ends[0]), np.linalg.norm(ends[3] - ends[2]))
            assert crossing(ends)[1] * longer == pytest.approx(least, abs=0.06)


def test_a_box_is_the_hull_of_the_ends_and_a_margin():
    assert hull_box([CROSS_AS_INDEX], 5).tolist() == [[4.5, 6.5, 34.5, 30.5]]


# presentation states


def test_two_polylines_of_one_annotation():
    found = of_state(annotation([graphic(CROSS[2:]), graphic(CROSS[:2])], IMAGE, [text("B06 F03")]))
    assert found["tool"].tolist() == ["RECIST pair"] and found["left_out"].tolist() == [""]
    assert drawn_ends(found) == CROSS_AS_INDEX  # the longer one first, whatever the file's order
    assert found.loc[0, "images"] == (("1.2.3", 0),) and found.loc[0, "follow_up"] == 3
    assert found.loc[0, "units"] == PIXEL


@pytest.mark.parametrize(
    "way", ["two annotations", "all long axes, then all short ones", "groups", "nothing but place"]
)
def test_two_lesions_whose_lines_are_kept_apart(way):
    far = CROSS + [40, 5]
    lines = [graphic(points) for cross in (CROSS, far) for points in (cross[:2], cross[2:])]
    if way == "two annotations":
        found = of_state(*(annotation([line], IMAGE) for line in lines))
    elif way == "groups":
        for n, line in enumerate(lines):
            line.GraphicGroupID = 1 + n // 2
        texts = [text("F07", GraphicGroupID=1), text("F08", GraphicGroupID=2)]
        found = of_state(annotation([lines[0], lines[2], lines[1], lines[3]], IMAGE, texts))
        assert found["follow_up"].tolist() == [7, 8]
    elif way == "nothing but place":
        found = of_state(annotation(lines[::-1], IMAGE))
    else:
        found = of_state(annotation([lines[0], lines[2]], IMAGE), annotation([lines[1], lines[3]], IMAGE))
    assert found["tool"].tolist() == ["RECIST pair"] * 2
    ends = sorted(drawn_ends(found, row) for row in (0, 1))
    assert ends == [CROSS_AS_INDEX, (np.array(CROSS_AS_INDEX) + [40, 5] * 4).tolist()]


def test_lines_on_two_images_are_no_pair():
    parts = [annotation([graphic(CROSS[k : k + 2])], drawn.image(f"1.{k}")) for k in (0, 2)]
    assert of_state(*parts)["tool"].tolist() == ["single line"] * 2


def test_images_of_the_whole_state_and_frames():
    found = of_state(annotation([graphic(CROSS[:2]), graphic(CROSS[2:])]), everywhere=drawn.image("1.7", frames=[4]))
    assert found.loc[0, "images"] == (("1.7", 4),)
    found = of_state(annotation([graphic(CROSS[:2]), graphic(CROSS[2:])], drawn.image("1.7", frames=[4, 5])))
    assert found.loc[0, "images"] == (("1.7", 4), ("1.7", 5))


def test_other_tools_have_their_names():
    circle = np.vstack([CROSS, CROSS[:1]])
    arrow = annotation([graphic(CROSS[:2], CompoundGraphicInstanceID=9)], IMAGE)
    arrow.CompoundGraphicSequence = drawn.Sequence(
        [drawn.item(CompoundGraphicInstanceID=9, CompoundGraphicUnits="PIXEL", CompoundGraphicType="ARROW",
                    GraphicData=[1.0, 1, 2, 2])]
    )  # fmt: skip
    found = of_state(
        annotation([graphic(CROSS[:2])], IMAGE, [text("B01")]),
        annotation([graphic(circle)], IMAGE),
        annotation([graphic(CROSS)], IMAGE),
        annotation([graphic(CROSS, "ELLIPSE"), graphic(CROSS[:1], "POINT"), graphic(CROSS, "INTERPOLATED")], IMAGE),
        annotation([], IMAGE, [text("see here")]),
        arrow,
    )
    assert found["tool"].tolist() == ["single line", "outline", "polyline of 4 points", "ellipse", "point", "curve",
                                      "text", "arrow"]  # fmt: skip
    assert found["left_out"].tolist() == found["tool"].tolist()


def test_an_arrow_of_three_strokes_is_no_pair_and_spoils_none():
    """Its shaft runs along the long diameter and crosses the short one as the long diameter does."""
    tip, shaft = CROSS[0], [[50.0, 20.0], CROSS[0]]
    strokes = [[tip + [4, 3], tip], [tip + [4, -4], tip]]
    arrow = [graphic(points, GraphicGroupID=2) for points in (shaft, *strokes)]
    pair = [graphic(points, GraphicGroupID=1) for points in (CROSS[:2], CROSS[2:])]
    found = of_state(annotation([*arrow, *pair], IMAGE))
    assert sorted(found["tool"]) == ["RECIST pair", "drawing of 3 lines"]
    assert drawn_ends(found, int(np.flatnonzero(found["tool"] == "RECIST pair")[0])) == CROSS_AS_INDEX
    head = of_state(annotation([graphic(points) for points in strokes], IMAGE), annotation([graphic(shaft)], IMAGE))
    assert "RECIST pair" not in head["tool"].tolist()[1:]


def test_lines_cross_in_the_body_and_not_in_pixels():
    """At right angles in mm, at 37 degrees in pixels that are three times as long along a column, as coronal ones."""
    lines = [annotation([graphic(points)], IMAGE) for points in ([[0.5, 0.5], [9.5, 3.5]], [[2, 3], [8, 1]])]
    marks = read_presentation_state(state(*lines), HERE)
    assert bookmarks_of(marks)["tool"].tolist() == ["single line"] * 2
    assert bookmarks_of(marks, {"1.2.4": 3.0})["tool"].tolist() == ["single line"] * 2  # of another image
    found = bookmarks_of(marks, {"1.2.3": 3.0})
    assert found["tool"].tolist() == ["RECIST pair"] and drawn_ends(found)[:4] == [0, 0, 9, 3]
    # in mm the other one is longer: 6 and 18 against 9 and 9
    steep = [annotation([graphic(points)], IMAGE) for points in ([[0, 0], [9, 3]], [[1, 4], [7, -2]])]
    found = bookmarks_of(read_presentation_state(state(*steep), HERE), {"1.2.3": 3.0})
    assert found["tool"].tolist() == ["RECIST pair"] and drawn_ends(found)[:4] == [0.5, 3.5, 6.5, -2.5]


def test_units_of_the_display_have_no_place_in_the_image():
    lines = [graphic(CROSS[k : k + 2] / 64, units="DISPLAY") for k in (0, 2)]
    found = of_state(annotation(lines, IMAGE))
    assert found.loc[0, "tool"] == "RECIST pair" and found.loc[0, "left_out"] == "in units of the display"


def test_graphic_data_that_is_no_points_is_left_out_by_name_and_the_rest_is_read():
    broken = drawn.item(GraphicData=[1.0, 2, 3], GraphicType="POLYLINE")
    lines = [graphic(CROSS[k : k + 2]) for k in (0, 2)]
    found = of_state(annotation([broken], IMAGE), annotation(lines, IMAGE))
    assert found["left_out"].tolist() == ["coordinates that can not be read", ""]
    assert found["place"].tolist()[0] == "annotation 1, object 1"
    endless = scoord(CROSS[:2], "1.2.3")
    endless.GraphicData = [1.0, 2.0, 3.0, float("nan")]
    found = of_report(group(endless), bidirectional(CROSS, "1.2.3"))
    assert found["left_out"].tolist() == ["coordinates that can not be read", ""]


# structured reports

SCT = {"long": ("103339001", "SCT"), "short": ("103340004", "SCT")}
OLD = {"long": ("G-A185", "SNM3"), "short": ("G-A186", "99SDM")}
UNKNOWN = {"long": ("L1", "99X"), "short": ("L2", "99X")}


@pytest.mark.parametrize("codes", [{}, SCT, OLD, UNKNOWN])
def test_a_measurement_group_of_two_axes(codes):
    found = of_report(bidirectional(CROSS, "1.2.3", **codes))
    assert found["left_out"].tolist() == [""] and drawn_ends(found) == CROSS_AS_INDEX
    assert found.loc[0, "images"] == (("1.2.3", 0),)


def test_coded_axes_are_told_from_a_third_line():
    depth = number(drawn.LENGTH, scoord(CROSS[:2] + [0, 2], "1.2.3"))
    pair = bidirectional(CROSS, "1.2.3")
    found = of_report(group(depth, *pair.ContentSequence))
    assert sorted(found["tool"]) == ["RECIST pair", "single line"]
    assert drawn_ends(found, int(np.flatnonzero(found["left_out"] == "")[0])) == CROSS_AS_INDEX


def test_two_groups_are_not_mixed_though_their_lines_cross():
    one, other = (group(number(drawn.LENGTH, scoord(CROSS[k : k + 2], "1.2.3"))) for k in (0, 2))
    assert of_report(one, other)["tool"].tolist() == ["single line"] * 2


def test_points_in_a_frame_of_reference():
    mm = np.column_stack([CROSS, np.full(4, -30.0)])
    named = content("IMAGE", None, ReferencedSOPSequence=drawn.image("1.2.3"))
    axes = [number(code, drawn.scoord3d(mm[k : k + 2], "1.5")) for code, k in ((drawn.LONG, 0), (drawn.SHORT, 2))]
    for more, images in (([named], (("1.2.3", 0),)), ([], ())):
        found = of_report(group(*axes, *more))
        assert found.loc[0, ENDS_MM].astype(float).tolist() == mm.ravel().tolist()
        assert (found.loc[0, "units"], found.loc[0, "space"], found.loc[0, "images"]) == (MM, "1.5", images)


def test_an_image_that_is_given_by_its_place_in_the_document():
    library = content("IMAGE", None, ReferencedSOPSequence=drawn.image("1.2.9"))
    pair = bidirectional(CROSS)
    for axis in pair.ContentSequence:
        there = drawn.item(RelationshipType="SELECTED FROM", ReferencedContentItemIdentifier=[1, 1, 2])
        axis.ContentSequence[0].ContentSequence = drawn.Sequence([there])
    found = of_report(pair, library)
    assert found.loc[0, "images"] == (("1.2.9", 0),)


def test_a_reference_that_leads_back_ends():
    pair = bidirectional(CROSS, "1.2.3")
    pair.ContentSequence.append(drawn.item(RelationshipType="INFERRED FROM", ReferencedContentItemIdentifier=[1, 1]))
    assert of_report(pair)["tool"].tolist() == ["RECIST pair"]


def test_a_reference_that_leads_nowhere_is_left_out_by_name():
    pair = bidirectional(CROSS, "1.2.3")
    pair.ContentSequence.append(drawn.item(RelationshipType="INFERRED FROM", ReferencedContentItemIdentifier=[1, 9]))
    found = of_report(pair)
    assert found["tool"].tolist() == ["RECIST pair", "reference to nothing"]
    assert found["left_out"].tolist() == ["", "reference to nothing"]
    assert found.loc[1, "place"] == "group 1.1, reference 1.1.3"


def test_what_is_no_pair_in_a_report():
    apart = CROSS.copy()
    apart[2:, 0] += 40
    slanted = CROSS.copy()
    slanted[2:] = [[11.0, 17.0], [28.0, 24.0]]
    found = of_report(
        group(scoord(CROSS[:2], "1.2.3", kind="CIRCLE")),
        group(scoord(np.vstack([CROSS, CROSS[:1]]), "1.2.3")),
        group(number(drawn.LENGTH)),
        bidirectional(apart, "1.2.3"),
        bidirectional(slanted, "1.2.3"),
        scoord(CROSS[:1], "1.2.3", kind="POINT"),  # in no group
    )
    assert sorted(found["tool"]) == sorted(
        ["circle", "outline", "measurement without coordinates", "two lines that do not cross",
         "two lines not perpendicular", "point"]
    )  # fmt: skip


def test_several_images_are_kept_for_the_reason():
    assert len(of_report(bidirectional(CROSS, "1.2.3", "1.2.4")).loc[0, "images"]) == 2


def test_the_number_of_a_set_of_bookmarks():
    assert [follow_up(label) for label in ("B06 F03", "F012", "lesion", "AF3", "F3 F4", "")] == [3, 12, 0, 0, 3, 0]


# csv


def write(tmp_path, *lines: str, header: str = HEADER) -> Path:
    path = tmp_path / "vertices.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_vertices_in_lps_and_ras(tmp_path):
    mm = np.column_stack([CROSS, [-7.0] * 4])
    ras = mm * [-1, -1, 1]
    found = bookmarks_of(read_vertices(write(tmp_path, drawn.row("1.8", "LPS", mm), drawn.row("1.8", "ras", ras))))
    assert found["series_uid"].tolist() == ["1.8", "1.8"] and found["place"].tolist() == ["line 2", "line 3"]
    assert np.allclose(found[ENDS_MM].to_numpy(float), mm.ravel())


def test_other_tools_in_a_csv_need_no_vertices(tmp_path):
    path = write(tmp_path, f"Arrow,{'1.8,,' + ',' * 11}", header=f"tool,{HEADER}")
    assert bookmarks_of(read_vertices(path))["left_out"].tolist() == ["arrow"]
    path.write_text(path.read_text().replace("Arrow", "arrow of Dr. Rolf"))
    assert bookmarks_of(read_vertices(path))["left_out"].tolist() == ["another tool"]


@pytest.mark.parametrize(
    ("line", "header", "message"),
    [
        ("1.8" + ",1" * 12, HEADER.replace("coordinates,", ""), "no column coordinates; LPS or RAS must be said"),
        ("1.8,LPS" + ",1" * 11, HEADER.replace(",z4", ""), "no column z4; it has series_uid"),
        ("1.8,LPI" + ",1" * 12, HEADER, "line 2: coordinates is 'LPI'; it must say LPS or RAS"),
        ("1.8,LPS" + ",1" * 11 + ",1e200", HEADER, "line 2: z4 is "),
        (",LPS" + ",1" * 12, HEADER, "line 2: series_uid is empty; without it the vertices lie in no CT"),
        ("1.8,LPS,," + "1," * 10 + "1", HEADER, "line 2: x1 is empty; give it in mm"),
        ('1.8,LPS,"1,5"' + ",1" * 11, HEADER, "line 2: x1 is '1,5', not a number; write a point instead"),
        ("1.8,LPS,nan" + ",1" * 11, HEADER, "line 2: x1 is 'nan', not a number"),
        ("1.8;LPS" + ";1" * 12, HEADER.replace(",", ";"), "separated by ';', not by commas"),
    ],
)
def test_a_csv_that_can_not_be_read(tmp_path, line, header, message):
    with pytest.raises(ValueError) as error:
        read_vertices(write(tmp_path, line, header=header))
    assert message in str(error.value) and "vertices.csv" in str(error.value)


def test_a_csv_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="--csv names a table of vertices"):
        read_vertices(tmp_path / "none.csv")


# merging


def bookmarks_on_slices(*rows, **more) -> pd.DataFrame:
    """Rows (series, slice, four ends) as a table with a place for each."""
    table = pd.DataFrame([row[:2] for row in rows], columns=["series_uid", "slice"])
    table[DIAMETERS] = np.array([row[2] for row in rows], dtype=float).reshape(-1, 8)
    table["bookmark"] = np.arange(1, len(rows) + 1)
    return table.assign(**({"left_out": "", "rules": ""} | more))


def square(x: float, y: float, side: float) -> list:
    """Ends whose hull is a square."""
    return [x, y + side / 2, x + side, y + side / 2, x + side / 2, y, x + side / 2, y + side]


def test_boxes_that_overlap_by_more_than_the_limit_are_one_lesion():
    # without a margin: squares of 10, moved by d along x, overlap by (10 - d) / (10 + d): 2.5 gives exactly .6
    rows = [
        ("a", 3, square(0, 0, 10)),
        ("a", 3, square(2.5, 0, 10)),
        ("a", 4, square(0, 0, 10)),
        ("b", 3, square(0, 0, 10)),
    ]
    assert merge(bookmarks_on_slices(*rows), 0.0, 0.6)["merged_into"].tolist() == [0, 0, 0, 0]
    rows[1] = ("a", 3, square(2.4, 0, 10))
    merged = merge(bookmarks_on_slices(*rows), 0.0, 0.6)
    assert merged["merged_into"].tolist() == [0, 1, 0, 0]
    assert merged.loc[0, MEAN].astype(float).tolist() == pytest.approx(square(1.2, 0, 10))
    assert merged.loc[1, DIAMETERS].astype(float).tolist() == square(2.4, 0, 10)  # what was drawn stays


def test_three_marks_are_averaged_evenly_and_their_lines_aligned():
    """The second one's lines are the other way round, and its ends too, as a second reader draws a round lesion."""
    one, two, three = square(0, 0, 10), square(1, 0, 10), square(2, 0, 10)
    turned = [*two[6:8], *two[4:6], *two[2:4], *two[0:2]]
    merged = merge(bookmarks_on_slices(("a", 3, one), ("a", 3, turned), ("a", 3, three)), 0.0, 0.6)
    assert merged["merged_into"].tolist() == [0, 1, 1]
    assert merged.loc[0, MEAN].astype(float).tolist() == pytest.approx(square(1, 0, 10))


def test_nothing_over_the_limit_is_left():
    rng = np.random.default_rng(1)
    rows = [("a", 0, square(*rng.uniform(0, 6, 2), rng.uniform(8, 12))) for _ in range(20)]
    merged = merge(bookmarks_on_slices(*rows), 5.0, 0.6)
    left = merged[merged["merged_into"] == 0]
    again = merge(bookmarks_on_slices(*(("a", 0, ends) for ends in left[MEAN].to_numpy(float))), 5.0, 0.6)
    assert 1 <= len(left) < 20 and (again["merged_into"] == 0).all()


# the rules


def test_measures_by_hand():
    plane = np.full((20, 30), -1000.0)
    plane[4:9, 10:21] = [[100.0, 200] * 5 + [100]] * 5
    ends = np.array(
        [
            [11.0, 6, 19, 6, 15, 5, 15, 7],
            [10.2, 5, 19.4, 5, 12, 4.6, 12, 7.1],
            [26.0, 16, 39, 16, 30, 16, 30, 21],
            [3.0, 3, 3, 3, 3, 3, 3, 3],
            [1.0, 1, 7, 7, 4, 4, 4.1, 3.9],
        ]
    )
    found = noise.measure(ends, 1.0, (0.5, 2.0), plane)
    areas = [8 * 0.5 * 2 * 2.0, 9.2 * 0.5 * 2.5 * 2, 13 * 0.5 * 5 * 2, 0.25, 36]
    assert found["area_mm2"].tolist() == pytest.approx(areas)
    assert found["side_ratio"].tolist() == pytest.approx([1.0, 5 / 4.6, 10 / 6.5, 4.0, 4.0])
    thin = np.hypot(3, 12) / 0.25  # no line is shorter than half a pixel
    assert found["axis_ratio"].tolist() == pytest.approx([1.0, 5 / 4.6, 10 / 6.5, 1.0, thin])
    assert found["mean_hu"][0] == found["mean_hu"][1] == pytest.approx(plane[4:9, 10:21].mean())
    assert found["mean_hu"][2] == -1000 and found["sd_hu"][2] == 0
    assert found["noise_hu"].tolist() == pytest.approx([100 / 0.6745 / np.sqrt(2)] * 5)  # neighbours differ by 100


def test_noise_is_that_of_tissue_whatever_the_organs_are():
    rng = np.random.default_rng(0)
    organs = np.repeat(np.repeat([[-1000.0, 40], [-100, 120]], 60, axis=0), 60, axis=1)
    assert noise.noise_of(organs + rng.normal(0, 9, organs.shape)) == pytest.approx(9, rel=0.05)
    assert np.isnan(noise.noise_of(np.full((9, 9), -1000.0)))


def boxes(rng: np.random.Generator, count: int) -> pd.DataFrame:
    """Measures as those of lesions: a quarter of them in lung."""
    lung = rng.random(count) < 0.25
    return pd.DataFrame(
        {
            "area_mm2": np.exp(rng.normal(5.33, 1.3, count)),
            "side_ratio": np.exp(np.abs(rng.normal(0, 0.33, count))),
            "axis_ratio": np.exp(np.abs(rng.normal(0.28, 0.2, count))),
            "mean_hu": np.where(lung, rng.uniform(-850, -200, count), rng.normal(40, 30, count)),
            "sd_hu": np.where(lung, rng.uniform(150, 350, count), rng.uniform(15, 90, count)),
            "noise_hu": rng.uniform(7, 11, count),
        }
    )


WRONG = {
    "small": (0.3, 1.0, 1.2, 40.0, 30.0, 9.0),
    "large": (60000.0, 1.3, 1.3, -100.0, 300.0, 9.0),
    "flat": (200.0, 6.0, 1.5, 30.0, 60.0, 9.0),
    "dark": (200.0, 1.2, 1.2, -999.0, 30.0, 9.0),
    "faint": (200.0, 1.2, 1.2, 45.0, 9.0, 9.0),
    "thin": (200.0, 1.2, 9.0, 45.0, 30.0, 9.0),
}


@pytest.mark.parametrize("count", [400, 20])
def test_each_rule_flags_its_kind_and_few_others(count):
    """With 20 boxes the reference stands in for percentiles."""
    right = boxes(np.random.default_rng(0), count)
    wrong = pd.DataFrame([WRONG[rule] for rule in noise.RULES], columns=right.columns)
    flags = noise.flag(noise.in_units(pd.concat([right, wrong], ignore_index=True)))
    assert flags.columns.tolist() == list(noise.RULES) == list(WRONG)
    assert flags.iloc[count:].to_numpy().tolist() == np.eye(6, dtype=bool).tolist()
    assert flags.iloc[:count].any(axis=1).mean() < 0.03
    assert noise.reasons(flags).iloc[count:].tolist() == list(WRONG)


def test_all_rules_that_flag_a_box_are_named():
    measured = pd.DataFrame([(0.3, 9.0, 9.0, -1000.0, 2.0, 9.0)], columns=noise.MEASURES)
    assert noise.reasons(noise.flag(noise.in_units(measured))).tolist() == ["small, flat, dark, faint, thin"]


def test_a_unit_is_a_standard_deviation_of_each_side():
    rng = np.random.default_rng(0)
    area = np.exp(np.where(rng.random(20000) < 0.5, -0.5, 2.0) * np.abs(rng.normal(0, 1, 20000)) + 5)
    measured = boxes(rng, 20000).assign(area_mm2=area)
    units = noise.in_units(measured)["area"]
    assert np.percentile(units, [15.9, 50, 84.1]) == pytest.approx([-1, 0, 1], abs=0.05)


def test_lung_is_not_dark_and_air_is():
    rng = np.random.default_rng(0)
    measured = boxes(rng, 200)
    measured.loc[0, "mean_hu"], measured.loc[1, "mean_hu"] = -1000.0, -850.0
    assert noise.flag(noise.in_units(measured))["dark"].head(2).tolist() == [True, False]


def test_a_right_box_and_a_wrong_one_are_not_merged():
    """Their mean is neither, and no rule would flag it; what the same rules flag is one wrong box."""
    one, near = square(0, 0, 10), square(1, 0, 10)
    rows = (("a", 3, one), ("a", 3, near), ("a", 3, near), ("a", 3, near))
    merged = merge(bookmarks_on_slices(*rows, rules=["", "flat", "", "flat"]), 0.0, 0.6)
    assert merged["merged_into"].tolist() == [0, 0, 1, 2]
    assert merged.loc[0, MEAN].astype(float).tolist() == pytest.approx(square(0.5, 0, 10))
    assert merged.loc[1, MEAN].astype(float).tolist() == near


def test_mergers_by_hand():
    """On one slice a lesion by two readers, a wrong mark and another lesion; the wrong one merged, the reader not."""
    table = bookmarks_on_slices(*(("s", n == 4, square(20 * n, 0, 9)) for n in range(5)), form="csv", image="i")
    table = table.assign(merged_into=[0, 0, 1, 0, 0])
    truth = table[["form", "image", "slice", *DIAMETERS]].assign(
        bookmark=[7, 8, 9, 10, 11], patient="p", study=1, identity=[1, 1, 0, 2, 1],
        what=["lesion", "lesion", "flat", "lesion", "lesion"])  # fmt: skip
    found = merges(match(table, truth), table).iloc[0]
    assert found[["twice", "merged", "right", "wrong_with_right"]].tolist() == [1, 1, 0, 1]
    assert (found["precision"], found["recall"]) == (0, 0)
    found = merges(match(table, truth), table.assign(merged_into=[0, 1, 0, 0, 0])).iloc[0]
    assert found[["twice", "merged", "right", "precision", "recall"]].tolist() == [1, 1, 1, 1, 1]


def test_precision_and_recall_of_the_rules():
    """Six lesions: two right ones of which one is flagged, wrong ones found, missed, and found by another rule."""
    whats = ["lesion", "lesion", "small", "outside", "no lesion", "small"]
    flags = ["", "flat", "small", "faint", "", ""]
    table = bookmarks_on_slices(*(("s", n, square(0, 0, 9)) for n in range(6)), form="csv", image="i", rules=flags)
    truth = table[["form", "image", "slice", *DIAMETERS]].assign(what=whats)
    matched = match(table, truth)
    assert matched["found"].tolist() == [0, 1, 2, 3, 4, 5] and matched["off_px"].max() == 0
    found = rules(matched, table).set_index("rule")
    assert found.loc["small", ["flagged", "right", "precision", "of_its_kind", "recall"]].tolist() == [1, 1, 1, 2, 0.5]
    assert found.loc["flat", "precision"] == 0 and found.loc["dark", "recall"] == 0
    assert found.loc["dark", "recall_of_any_rule"] == 1 and np.isnan(found.loc["large", "precision"])
    assert found.loc["any", ["flagged", "right", "of_its_kind"]].tolist() == [3, 2, 4]
    assert found.loc["any", "precision"] == pytest.approx(2 / 3) and found.loc["any", "recall"] == 0.5


def test_matching_goes_by_place_and_each_is_used_once():
    table = bookmarks_on_slices(("s", 0, square(0, 0, 9)), ("s", 0, square(0.4, 0, 9)), form="csv", image="i")
    truth = bookmarks_on_slices(("s", 0, square(0.3, 0, 9)), ("s", 0, square(0, 0, 9)), ("s", 1, square(0, 0, 9)),
                                form="csv", image="i", what="lesion")  # fmt: skip
    matched = match(table, truth)
    assert matched["found"].tolist() == [1, 0, -1] and matched["off_px"].tolist()[:2] == pytest.approx([0.1, 0])
    turned = truth.copy()
    turned[DIAMETERS] = truth[DIAMETERS].to_numpy()[:, [6, 7, 4, 5, 0, 1, 2, 3]]
    assert match(table, turned)["off_px"].tolist()[:2] == pytest.approx([0.1, 0])
    assert forms(matched).set_index("form").loc["csv", ["lesions", "found"]].tolist() == [3, 2]
    assert sorted(match(table.iloc[:1], truth)["found"]) == [-1, -1, 0]


# the dataset


@pytest.mark.parametrize(
    ("keys", "slices", "slice_mm", "expected"),
    [
        ([50], 200, 1.0, [(20, 80)]),
        ([50], 200, 5.0, [(44, 56)]),
        ([50], 200, 4.0, [(42, 58)]),  # 7.5 slices, rounded up, as in DL_info.csv
        ([60], 200, 0.59998, [(9, 111)]),
        ([50], 200, 1.0000001, [(20, 80)]),
        ([2, 198], 200, 5.0, [(0, 8), (192, 199)]),  # the scan ends
        ([50, 63], 200, 5.0, [(44, 69)]),  # they touch
        ([50, 64], 200, 5.0, [(44, 56), (58, 70)]),
        ([64, 50, 57], 200, 5.0, [(44, 70)]),
    ],
)
def test_ranges_by_hand(keys, slices, slice_mm, expected):
    assert ranges(keys, slices, slice_mm, 30.0) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PatientAge": "062Y"}, "62"),
        ({"PatientAge": "018M"}, "1"),
        ({"PatientAge": "93"}, ""),
        ({"PatientAge": "093Y"}, "90"),  # so old that the age would tell who it is
        ({"PatientBirthDate": "19500702", "StudyDate": "20200701"}, "69"),
        ({"PatientBirthDate": "19500702", "StudyDate": "20200702"}, "70"),
        ({"PatientBirthDate": "19500702"}, ""),
        ({}, ""),
    ],
)
def test_age(tags, expected):
    assert age(tags) == expected


def test_sex_and_window():
    assert [sex({"PatientSex": text}) for text in ("F", "m ", "O", None)] == ["F", "M", "", ""]
    assert window({"WindowCenter": "50", "WindowWidth": "450"}) == "-175, 275"
    assert window({"WindowCenter": [-500, 50], "WindowWidth": [2000, 450]}) == "-1500, 500"
    assert window({"WindowCenter": "50"}) == window({}) == ""


def numbered(*rows) -> pd.DataFrame:
    """Rows (series, study, patient, date, number of the series)."""
    table = pd.DataFrame([row[:3] for row in rows], columns=["series_uid", "study_uid", "patient_id"]).assign(issuer="")
    series = {
        row[0]: Series((), (), np.zeros(0), np.eye(3), False, (False, False), (1, 1, 1), (1, 1),
                       {"StudyDate": row[3], "SeriesNumber": row[4]})
        for row in rows
    }  # fmt: skip
    return number_series(table, series).set_index("series_uid")


def test_numbers_are_those_of_dates_not_of_names():
    rows = [
        ("s1", "t1", "Anna", "20200101", 3),
        ("s2", "t2", "Anna", "20190101", 2),
        ("s3", "t1", "Anna", "20200101", 2),
    ]
    found = numbered(*rows)
    assert found["name"].to_dict() == {"s2": "000001_01_01", "s3": "000001_02_01", "s1": "000001_02_02"}
    assert numbered(*rows[::-1])["name"].to_dict() == found["name"].to_dict()


def test_patients_are_in_no_order_of_names_and_split_by_person():
    names = [f"P{n:03d}" for n in range(40)]
    found = numbered(*((f"s{n}", f"t{n}", name, "20200101", 1) for n, name in enumerate(names)))
    order = found["patient"].tolist()
    assert (
        sorted(order) == list(range(1, 41)) and abs(np.corrcoef(order, [int(s[1:]) for s in found.index])[0, 1]) < 0.5
    )
    assert found["split"].value_counts().to_dict() == {1: 28, 2: 6, 3: 6}
    two = numbered(("s1", "t1", "A", "2020", 1), ("s2", "t2", "A", "2021", 1))
    assert two["split"].nunique() == 1


def test_patients_without_an_identifier_are_not_one():
    found = numbered(("s1", "t1", "", "2020", 1), ("s2", "t2", "", "2021", 1), ("s3", "t2", "", "2021", 2))
    assert found.loc["s2", "patient"] == found.loc["s3", "patient"] != found.loc["s1", "patient"]


def test_too_many_studies_for_the_names_of_files():
    with pytest.raises(ValueError, match="a study has the number 100; DeepLesion's file names have room for 99"):
        numbered(*((f"s{n}", f"t{n}", "A", f"{2000 + n}", 1) for n in range(100)))


def test_every_bookmark_is_counted_once():
    table = pd.DataFrame(
        {"left_out": ["", "", "text", "text"], "merged_into": [0, 1, 0, 0], "form": ["csv", "csv", "a", "b"]}
    )
    found = what_became(table)
    assert found.values.tolist() == [
        ["in the dataset", "csv", 1], ["merged into another one", "csv", 1], ["text", "a", 1], ["text", "b", 1]
    ]  # fmt: skip
