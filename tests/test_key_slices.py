"""Key slices: the public rule by hand, against a literal form of it and on the golden file; strata; what the "false
positives" are; files that are refused."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import interp1d

from lensnb import __main__ as cli
from lensnb.boxes import BOX
from lensnb.evaluation import froc, key_slice_files, key_slices
from lensnb.evaluation.key_slices import AVERAGED, RATES, match, sensitivity_at
from lensnb.evaluation.published_deeplesion import AT_OTHER_RATES, KEY_SLICES

# Five lesions on four slices of three patients. All boxes are of whole pixels, both ends included.
A, B, C, D = ("000001_01_01", 7), ("000001_01_01", 9), ("000002_01_01", 7), ("000003_01_01", 7)
LESIONS = [
    (*A, 10, 10, 19, 19, "lung"),  # 10 x 10
    (*A, 20, 10, 29, 19, "lung"),  # 10 x 10, beside it
    (*B, 10, 10, 29, 29, "liver"),  # 20 x 20
    (*C, 50, 50, 59, 59, "lung"),
    (*D, 10, 10, 19, 19, "bone"),
]
# Twelve boxes by falling score, and behind each what becomes of it by the rule at IoU .5.
BOXES = [
    (*A, 10, 10, 29, 19, 0.99),  # 100 of 200 pixels with each lesion of A: exactly .5, hits both; without +1 .474 only
    (*B, 60, 60, 69, 69, 0.95),  # false, .25 a slice
    (*A, 10, 10, 19, 18, 0.90),  # 90 of 100, a lesion that is found already: neither
    (*B, 10, 10, 29, 19, 0.85),  # 200 of 400: hits the lesion of B
    (*C, 10, 10, 19, 19, 0.80),  # false, .5: meets the rate exactly with 3 of 5 found
    (*C, 50, 50, 59, 59, 0.75),  # hits the lesion of C, at .5 too, so after the point that counts
    (*D, 30, 30, 39, 39, 0.70),  # false, .75
    (*D, 10, 10, 19, 13, 0.65),  # 40 of 100, too little: false, 1.0, with 4 of 5 found
    (*D, 10, 10, 19, 14, 0.60),  # 50 of 100: hits the lesion of D, at 1.0 too
    (*B, 11, 11, 30, 30, 0.55),  # 361 of 439, a repeat
    (*A, 40, 40, 49, 49, 0.50),  # false, 1.25
    (*C, 0, 0, 5, 5, 0.45),  # false, 1.5: the curve ends
]


def lesions(rows=LESIONS, *more) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["volume", "z", *BOX, *(more or ("type",))])


def boxes(rows=BOXES) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["volume", "z", *BOX, "score"])


def test_twelve_boxes_by_hand():
    matches = match(lesions(), boxes())
    assert matches.new_lesions.tolist() == [2, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0]
    assert matches.is_false.tolist() == [False, True, False, False, True, False, True, True, False, False, True, True]
    result = key_slices.evaluate(matches, resamples=20)
    assert result.fp == (0.5, 1, 2, 4, 8, 16)
    assert result.sensitivity == pytest.approx([0.6, 0.8, 1, 1, 1, 1], abs=1e-15)
    assert (result.not_reached, result.end) == ((2, 4, 8, 16), 1.5)
    assert result.average == pytest.approx((0.6 + 0.8 + 1 + 1) / 4, abs=1e-15)
    assert 0 < result.average_low <= result.average <= result.average_high <= 1
    # the order of the rows does not matter, and neither do names that are no DeepLesion's
    shuffled = boxes().sample(frac=1, random_state=0)
    renamed = [table.replace({"000001_01_01": "somebody"}) for table in (lesions(), shuffled)]
    assert key_slices.evaluate(match(*renamed), resamples=0).sensitivity == result.sensitivity


def test_the_threshold_counts_itself():
    half = boxes([(*C, 50, 50, 59, 54, 0.5)])
    assert match(lesions(), half, 0.5).new_lesions.tolist() == [1]
    assert match(lesions(), half, 0.501).is_false.tolist() == [True]


def literal(truth: pd.DataFrame, found: pd.DataFrame, iou: float) -> tuple[list[float], list[float]]:
    """The public rule box by box: false positives a slice and sensitivity after each of them."""
    slices = {key: part[BOX].values.tolist() for key, part in truth.groupby(["volume", "z"])}
    hit_before, true, false, points = set(), 0, 0, ([], [])
    for row in found.sort_values("score", ascending=False).itertuples():
        hits = []
        for number, (x1, y1, x2, y2) in enumerate(slices[row.volume, row.z]):
            width = min(row.x2, x2) - max(row.x1, x1) + 1.0
            height = min(row.y2, y2) - max(row.y1, y1) + 1.0
            if width > 0 and height > 0:
                one, other = (row.x2 - row.x1 + 1) * (row.y2 - row.y1 + 1), (x2 - x1 + 1) * (y2 - y1 + 1)
                if width * height / (one + other - width * height) >= iou:
                    hits.append((row.volume, row.z, number))
        true += len(set(hits) - hit_before)
        hit_before.update(hits)
        false += not hits
        points[0].append(false / len(slices))
        points[1].append(true / len(truth))
    return points


def extrapolated(points: tuple, rates) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return interp1d(*points, fill_value="extrapolate")(rates)


@pytest.fixture(scope="module")
def crowd():
    """5,000 boxes on 250 slices with up to three lesions, many of which overlap; half of the boxes lie near one."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for number in range(250):
        where = (f"{number // 3:06d}_01_01", number)
        for _ in range(rng.integers(1, 4)):
            x, y, width, height = rng.integers([20, 20, 6, 6], [45, 45, 30, 30])
            truth.append((*where, x, y, x + width, y + height))
    for score in rng.permutation(5000) / 5000:
        volume, z, *near = truth[rng.integers(len(truth))]
        if rng.random() < 0.5:
            x1, y1, x2, y2 = np.array(near) + rng.integers(-4, 5, 4) * rng.choice([0.5, 1.0])
        else:
            x1, y1, x2, y2 = np.repeat(rng.uniform(0, 60, (1, 2)), 2, 0).ravel() + [0, 0, *rng.uniform(2, 30, 2)]
        found.append((volume, z, min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2), score))
    return pd.DataFrame(truth, columns=["volume", "z", *BOX]), boxes(found)


@pytest.mark.parametrize("iou", [0.3, 0.5])
def test_5000_boxes_against_the_literal_rule(crowd, iou):
    points = literal(*crowd, iou)
    matches = match(*crowd, iou)
    curve, slices = froc.curve(matches), len(matches.volumes)
    np.testing.assert_allclose([curve.false_positives, curve.sensitivity], points, rtol=0, atol=1e-12)
    end = points[0][-1]
    rates = [*AVERAGED, *(np.arange(2, int(end * slices)) / slices), *np.random.default_rng(1).uniform(0.1, end, 500)]
    np.testing.assert_allclose(sensitivity_at(curve, rates), extrapolated(points, rates), rtol=0, atol=1e-9)
    # the case has all that the rule speaks of, and the other reading of the curve would not pass
    repeats = (matches.new_lesions == 0) & ~matches.is_false
    assert repeats.sum() > 100 and (matches.new_lesions > 1).sum() > 10 and end > AVERAGED[-1]
    assert np.abs(froc.sensitivity_at(curve, rates) - sensitivity_at(curve, rates)).max() > 1e-3


def test_where_the_public_code_extrapolates_the_last_value_stays():
    """Two slices: a false box last, a hit last, a repeat last; and what stands before the first point."""
    false, hit = (*A, 60, 60, 69, 69), (*A, 10, 10, 19, 19)
    truth = lesions(LESIONS[:4:3])  # one on A, one on C
    theirs = {}
    for name, kinds in {"false": (hit, false, false), "hit": (false, hit), "repeat": (hit, false, hit)}.items():
        found = boxes([(*kind, 1 - n / 10) for n, kind in enumerate(kinds)])
        curve = froc.curve(match(truth, found))
        assert sensitivity_at(curve, [4.0]).tolist() == [0.5]
        assert key_slices.evaluate(match(truth, found), resamples=0).not_reached[-1] == 16
        theirs[name] = float(extrapolated((curve.false_positives, curve.sensitivity), 4.0))
    assert theirs["false"] == 0.5 and theirs["hit"] == np.inf and np.isnan(theirs["repeat"])
    # one false box meets .5 a slice: nothing was found before it, and theirs has no line to go on along
    curve = froc.curve(match(truth, boxes([(*false, 0.9), (*hit, 0.8)])))
    assert sensitivity_at(curve, [0.1, 0.5]).tolist() == [0, 0]
    before = extrapolated((curve.false_positives, curve.sensitivity), [0.1, 0.5])
    assert before[0] == -np.inf and np.isnan(before[1])


def test_nothing_found_and_slices_without_lesions():
    nothing = key_slices.evaluate(match(lesions(), boxes([])), resamples=10)
    assert nothing.sensitivity == (0,) * 6 and nothing.end == 0 and nothing.not_reached == RATES
    # a fifth slice without a lesion: .5 false positives a slice are met by the third of them, with 4 of 5 found
    empty = pd.concat([lesions(), lesions([("000009_01_01", 7, *[np.nan] * 4, None)])])
    result = key_slices.evaluate(match(empty, boxes()), resamples=0)
    assert result.sensitivity[0] == 0.8 and result.end == 6 / 5
    with pytest.raises(ValueError, match="no lesion in its 1 volume"):
        key_slices.evaluate(match(empty.iloc[-1:], boxes([])))


def test_bad_tables():
    with pytest.raises(ValueError, match=r"the detections: column\(s\) score missing"):
        match(lesions(), lesions())
    with pytest.raises(ValueError, match="row 12: z is not a finite number"):
        match(lesions(), boxes([*BOXES[:-1], ("000001_01_01", np.nan, 1, 1, 2, 2, 0.5)]))
    with pytest.raises(ValueError, match="the first is 000001_01_01 8"):
        match(lesions(), boxes([("000001_01_01", 8, 1, 1, 2, 2, 0.5)]))
    with pytest.raises(ValueError, match="inverted"):
        match(lesions(), boxes([(*A, 5, 1, 2, 2, 0.5)]))


def test_patients():
    names = ["000012_01_02 7", "000012_03_01_103-115 104", "000012_01 7", "my scan 3"]
    assert key_slices.patients(names) == ["000012", "000012", "000012_01", "my scan"]
    assert key_slices.slice_names(lesions()).tolist()[:3] == ["000001_01_01 7", "000001_01_01 7", "000001_01_01 9"]


def test_a_drawn_test_set_is_judged_as_if_it_lay_there(crowd):
    """Each sample is the result on the drawn patients' slices, copied as often as they were drawn."""
    matches = match(*crowd)
    samples = key_slices.bootstrap(matches, resamples=4, seed=3)
    draws = froc.times_drawn(matches.volumes, key_slices.patients(matches.volumes), 4, 3)
    for times, sample in zip(draws, samples, strict=True):
        assert times.max() > 1 and (times == 0).any()
        copies = [
            pd.concat(
                table[np.isin(key_slices.slice_names(table), np.array(matches.volumes)[times > n])].assign(
                    volume=lambda t, n=n: f"copy {n} of " + t["volume"]
                )
                for n in range(times.max())
            )
            for table in crowd
        ]
        np.testing.assert_allclose(sample, sensitivity_at(froc.curve(match(*copies)), AVERAGED), rtol=0, atol=1e-12)


def test_a_difference_is_paired():
    truth = lesions([(f"{n:06d}_01_01", 1, 10, 10, 19, 19, "") for n in range(200)])
    half, more = (boxes([(*row[:6], 0.5) for row in truth.values[:n].tolist()]) for n in (100, 120))
    first, second = match(truth, more), match(truth, half)
    change = key_slices.difference(first, second, resamples=300)
    assert change.value == pytest.approx(0.1) and 0.05 < change.low < 0.1 < change.high < 0.15
    assert key_slices.difference(first, first, resamples=50) == froc.Difference(0, 0, 0)
    # unpaired, the interval would be more than twice as wide
    apart = key_slices.averages(first, 300)[1:] - key_slices.averages(second, 300, seed=1)[1:]
    low, high = froc.interval(apart)
    assert high - low > 2 * (change.high - change.low)
    with pytest.raises(ValueError, match="same slices"):
        key_slices.difference(first, match(truth[1:], half[1:]))


def test_strata_by_hand():
    """At .5 the lesions of A and B are found, at 1 that of C, later that of D; see BOXES."""
    table = key_slices.sensitivity_by(lesions(), boxes(), "type").set_index("type")
    assert table.lesions.to_dict() == {"lung": 3, "liver": 1, "bone": 1} and table.index[0] == "lung"
    assert table["fp_0.5"].to_dict() == pytest.approx({"lung": 2 / 3, "liver": 1, "bone": 0})
    assert table["fp_1"].to_dict() == {"lung": 1, "liver": 1, "bone": 0}
    assert table["fp_2"].to_dict() == {"lung": 1, "liver": 1, "bone": 1}
    assert table.loc["lung", "average"] == pytest.approx((2 / 3 + 1 + 1 + 1) / 4)
    # boxes on other kinds are false: three before the liver's, which is .75 a slice, and eight before the bone's: 2.0
    others = key_slices.sensitivity_by(lesions(), boxes(), "type", others_false=True).set_index("type")
    assert others.loc["liver", ["fp_0.5", "fp_1"]].tolist() == [0, 1]
    assert others.loc["bone", ["fp_2", "fp_4"]].tolist() == [0, 1]
    # weighed by their lesions, strata give the whole, and they can be bootstrapped
    for rate in ("fp_0.5", "fp_1", "fp_16"):
        whole = key_slices.sensitivity_by(lesions().assign(all="all"), boxes(), "all")[rate]
        assert (table[rate] * table.lesions).sum() / 5 == pytest.approx(whole[0])
    assert key_slices.bootstrap(key_slices.strata(lesions(), boxes(), "type")["lung"], 5).shape == (5, 4)


def test_strata_without_a_value_and_in_order():
    sizes = key_slices.size_ranges([9.99, 10, 60, 49.9, np.inf])
    assert list(sizes) == ["under 10 mm", "10 to 15 mm", "50 mm and more", "30 to 50 mm", "50 mm and more"]
    table = key_slices.sensitivity_by(lesions().assign(size=sizes), boxes(), "size")
    assert list(table["size"]) == ["under 10 mm", "10 to 15 mm", "30 to 50 mm", "50 mm and more"]
    assert table.lesions.tolist() == [1, 1, 1, 2]
    partly = lesions()
    partly.loc[partly["type"] == "lung", "type"] = np.nan
    assert set(key_slices.strata(partly, boxes(), "type")) == {"liver", "bone"}


def test_by_iou():
    """At .4 the eighth box hits the lesion of D; above .5 the boxes on A and B that share just half are false."""
    table = key_slices.sensitivity_by_iou(lesions(), boxes(), [0.4, 0.5, 0.51]).set_index("iou")
    assert table["fp_1"].tolist() == [1, 0.8, 0.2]
    assert table["fp_16"].tolist() == [1, 1, 3 / 5]  # D's lesion is never found, and of A's only one


def test_what_false_positives_are_by_hand():
    """Two slices with a marked and a forgotten lesion each; a third slice, which is not judged, has one more."""
    marked = lesions([(*A, 10, 10, 19, 19, ""), (*B, 10, 10, 19, 19, "")])
    forgotten = lesions([(*A, 40, 40, 49, 49, ""), (*B, 40, 40, 49, 49, ""), (*C, 40, 40, 49, 49, "")])
    found = boxes(
        [
            (*A, 40, 40, 49, 49, 0.9),  # called false, .5 a slice, but a lesion
            (*A, 10, 10, 19, 19, 0.8),  # a marked lesion
            (*B, 70, 70, 79, 79, 0.7),  # false, 1.0 (by all lesions .5)
            (*B, 40, 40, 49, 49, 0.6),  # called false, 1.5, but a lesion
            (*B, 41, 40, 50, 49, 0.5),  # called false, 2.0, but the same lesion again
            (*B, 10, 10, 19, 19, 0.4),  # a marked lesion
            (*A, 80, 80, 89, 89, 0.3),  # false, 2.5 (1.0)
        ]
    )
    complete = pd.concat([marked, forgotten])
    table = key_slices.lesions_among_false_positives(marked, complete, found, rates=(0.4, 0.5, 1, 2, 4))
    assert table.reached.tolist() == [True, True, True, True, False]
    assert table.false_positives.tolist() == [0, 1, 2, 4, 5]
    assert table.lesions.tolist() == [0, 1, 1, 3, 3]
    assert np.isnan(table.share[0]) and table.share[1:].tolist() == [1, 0.5, 0.75, 0.6]
    assert table.true_fp.tolist() == [0, 0, 0.5, 0.5, 1]
    assert table.sensitivity_marked.tolist() == [0, 0, 0.5, 0.5, 1]
    assert table.sensitivity_all.tolist() == [0.5, 0.5, 1, 1, 1]
    # complete labels hide nothing
    honest = key_slices.lesions_among_false_positives(complete, complete, found)
    assert (honest.lesions == 0).all() and (honest.sensitivity_marked == honest.sensitivity_all).all()


# files

HEADER = "image,x1,y1,x2,y2"
ONE, TWO = "000001_01_01_007.png", "000002_01_01_009.png"


def info_row(file, box, split, noisy=0, kind=5, ends="15, 20, 24, 20, 19, 16, 19, 24"):
    """A line of DL_info.csv; by default a lesion of 9 by 8 pixels of .5 mm."""
    slices = f"{int(file[-7:-4]) - 3}, {int(file[-7:-4]) + 3}"
    parts = [file, int(file[-7:-4]), f'"{ends}"', f'"{box}"', kind, noisy, f'"{slices}"', '"0.5, 0.5, 5"', '"512, 512"']
    return ",".join(map(str, [*parts, split]))


INFO_HEADER = (
    "File_name,Key_slice_index,Measurement_coordinates,Bounding_boxes,Coarse_lesion_type,Possibly_noisy,Slice_range,"
    "Spacing_mm_px_,Image_size,Train_Val_Test"
)
INFO = [
    info_row(ONE, "10, 11, 29, 29", 3),
    info_row(ONE, "40, 40, 49, 49", 3, kind=1, ends="45, 1, 45, 121, 15, 45, 55, 45"),  # 60 by 20 mm
    info_row(TWO, "10, 10, 29, 29", 3),
    info_row(TWO, "60, 60, 79, 79", 3, noisy=1),
    info_row("000004_01_01_100.png", "10, 10, 29, 29", 3, noisy=1),
    info_row("000003_01_01_030.png", "10, 10, 29, 29", 2),
    info_row("000005_01_01_040.png", "10, 10, 29, 29", 1, kind=-1),
]


@pytest.fixture
def files(tmp_path):
    """DL_info.csv with two test images and three lesions that count, and predictions: a false one, then a hit."""
    truth, predictions = tmp_path / "DL_info.csv", tmp_path / "mine.csv"
    truth.write_text("\n".join([INFO_HEADER, *INFO]) + "\n")
    predictions.write_text(f"{HEADER},score,note\n{TWO},60,60,79,79,.9,x\n{ONE},10,11,29,29,.8,\n")
    return truth, predictions


def run(files, *options) -> int:
    return cli.main(["evaluate-slices", "--truth", str(files[0]), "--predictions", str(files[1]), *map(str, options)])


def test_command(files, tmp_path, capsys):
    out = tmp_path / "result.json"
    assert run(files, "--json", out) == 0
    text, result = capsys.readouterr().out, json.loads(out.read_text())
    # the box on the noisy lesion is false: .5 an image; the next one finds one of three
    assert result["fp"] == [0.5, 1, 2, 4, 8, 16] and result["not_reached"] == [1, 2, 4, 8, 16]
    assert result["sensitivity"] == pytest.approx([0, *[1 / 3] * 5]) and result["average"] == pytest.approx(0.25)
    counts = ("images", "patients", "lesions", "predictions", "images_without_predictions")
    assert [result[name] for name in counts] == [2, 2, 3, 2, 0] and result["max_fp"] == 0.5
    assert result["by_type"]["lung"] == {"lesions": 2, "sensitivity": [0, *[0.5] * 5], "average": 0.375}
    # 9 by 8 pixels of .5 mm are 4.25 mm; 60 by 20 mm are 40
    assert {name: row["lesions"] for name, row in result["by_size"].items()} == {"under 10 mm": 2, "30 to 50 mm": 1}
    assert "IoU >= 0.5" in text and "lung, 2 lesions" in text
    assert "not reached: 1, 2, 4, 8, 16 false positives an image; the curve ends at 0.5" in text


def test_splits_and_thresholds(files, tmp_path):
    out = tmp_path / "result.json"
    files[1].write_text(f"{HEADER},score\n000005_01_01_040.png,10,10,29,19,.9\n")
    for iou, found in ((0.5, 1), (0.51, 0)):
        assert run(files, "--split", "train", "--iou", iou, "--json", out) == 0
        result = json.loads(out.read_text())
        assert (result["sensitivity"][-1], result["lesions"], result["by_type"]) == (found, 1, {})


def test_boxes_are_in_the_files_own_coordinates(files):
    truth = key_slice_files.read_truth(files[0]).lesions
    assert truth[["volume", "z", *BOX]].values.tolist()[0] == ["000001_01_01", 7, 10, 11, 29, 29]


def test_predictions_on_noisy_images_are_told_of_and_left_out(files, tmp_path, capsys):
    with files[1].open("a") as file:
        file.write("000004_01_01_100.png,10,10,29,29,.99,\n")
    out = tmp_path / "result.json"
    assert run(files, "--json", out) == 0
    assert "1 predictions lie on images whose lesions are all marked Possibly_noisy" in capsys.readouterr().err
    result = json.loads(out.read_text())
    assert (result["predictions"], result["predictions_on_noisy_images"], result["max_fp"]) == (2, 1, 0.5)


def test_a_csv_as_truth(files, tmp_path, capsys):
    truth, out = tmp_path / "truth.csv", tmp_path / "result.json"
    truth.write_text(f"{HEADER}\n{ONE},10,11,29,29\nmy own.png,,,,\n{TWO},1,1,5,5\n")
    assert run((truth, files[1]), "--json", out) == 0
    result = json.loads(out.read_text())
    # one false box in three images before the hit; TWO's lesion is missed
    assert result["sensitivity"] == [0.5] * 6 and result["max_fp"] == pytest.approx(1 / 3)
    assert (result["images"], result["patients"], result["images_without_predictions"]) == (3, 3, 1)
    assert "by_type" not in result and "by_size" not in result
    files[1].write_text(f"{HEADER},score\n")
    assert run((truth, files[1]), "--json", out) == 0
    assert "--predictions has no rows: nothing was found" in capsys.readouterr().err
    assert json.loads(out.read_text())["sensitivity"] == [0] * 6


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (f"{ONE},10,10,19,19,nan", "line 2: score is nan, not a finite number"),
        (f"{ONE},10,10,19,19,", "line 2: score is empty, not a finite number"),
        (f"{ONE},10,10,19,19,inf", "line 2: score is inf, not a finite number"),
        (f"{ONE},10,10,19,19,high", "line 2: score is 'high', not a number"),
        (f"{ONE},10,10,19,19,.5\n\n{ONE},10,,19,19,.5", "line 4: y1 is empty"),
        (f"{ONE},10,1O,19,19,.5", "line 2: y1 is '1O', not a number"),
        (f'{ONE},10,"10,5",19,19,.5', "line 2: y1 is '10,5', not a number; write a point"),
        (f"{ONE},10,10,9,19,.5", "line 2: an inverted box"),
        (f"{ONE},10,10,1e12,19,.5", "line 2: a coordinate lies outside every image"),
        (f",10,10,19,19,.5\n{ONE},1,1,2,2,.5", "line 2: no image is named; images are named as in DL_info"),
        (f"{ONE}\u200b,10,10,19,19,.5", "line 2: image .* has an invisible character"),
        (f"{ONE},1,1,2,2,.5\n{TWO},1,1,2,2,.5\n{ONE},1,1,2,2,.50", r"line 4: the same as line 2 \(1 such rows\); rem"),
        ("x.png,1,1,2,2,.5", "names 1 image.s. that the truth does not have, the first, in line 2, is x.png: choose"),
        ("1_1_1_7.png,1,1,2,2,.5", f"1_1_1_7.png should be {ONE}: leading zeros were lost"),
        ("000003_01_01_030.png,1,1,2,2,.5", "it is of the split val, choose that with --split"),
    ],
)
def test_bad_predictions_are_refused_in_one_line(files, capsys, rows, message):
    files[1].write_text(f"{HEADER},score\n{rows}\n")
    assert run(files) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("lensnb: ") and "mine.csv" in error
    with pytest.raises(ValueError, match=f"mine.csv.*{message}"):
        key_slice_files.evaluate_files(*files)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "truth.csv can not be read as a csv: No columns, the file is empty"),
        (f"{HEADER}\n", "truth.csv has no rows; an image without lesions is a row with four empty coordinates"),
        (f"{HEADER}\n{ONE},,,,\n", "truth.csv: no lesion in its 1 image"),
        (f"{HEADER}\n{ONE},1,1,,5\n", "truth.csv, line 2: x2 is empty, not a finite number"),
        (f"{HEADER}\n{ONE},1,1,5,5\n{ONE},,,,\n", f"line 3: {ONE} has no box here, but one in another line"),
        (f"{HEADER}\n{ONE},1,1,5,5\n{ONE},1,1,5,5.0\n", "line 3: the same as line 2"),
        ("image,x1,y1,x2\na,1,1,1\n", r"truth.csv: column\(s\) y2 missing; there are image, x1, y1, x2"),
        (f"{INFO_HEADER}\n{INFO[-1]}\n", "truth.csv has no lesions of the split 'test'; it has train"),
        ("\n".join([INFO_HEADER, INFO[0], INFO[2], INFO[0]]), "truth.csv, line 4: the same as line 2"),
        ("File_name,Train_Val_Test\na,1\n", "has no column Key_slice_index"),
    ],
)
def test_bad_truth(files, tmp_path, content, message):
    truth = tmp_path / "truth.csv"
    truth.write_text(content)
    files[1].write_text(f"{HEADER},score\n")
    with pytest.raises(ValueError, match=message):
        key_slice_files.evaluate_files(truth, files[1])


def test_bad_columns_files_and_usage(files, tmp_path, capsys):
    files[1].write_text(f"volume,{HEADER}\n")
    with pytest.raises(ValueError, match=r"mine.csv: column\(s\) score missing"):
        key_slice_files.evaluate_files(*files)
    files[1].write_text("")
    assert run(files) == 2 and "mine.csv can not be read as a csv" in capsys.readouterr().err
    assert run((files[0], tmp_path / "none.csv")) == 2 and "none.csv does not exist" in capsys.readouterr().err
    assert run(files, "--json", files[0]) == 2 and "--json" in capsys.readouterr().err
    for options in (["--iou", "30"], ["--split", "official-test"]):
        with pytest.raises(SystemExit):
            run(files, *options)
    assert "evaluate-slices --truth DL_info.csv" in cli.EXAMPLES["evaluate-slices"]


# the real table, and the golden file: what the public code says of made-up detections


@pytest.fixture(scope="module")
def real(shared_data):
    return shared_data / "real/DeepLesion/DL_info.csv"


@pytest.mark.parametrize("iou", [0.5, 0.3])
def test_golden_file(shared_data, real, iou):
    expected = json.loads((shared_data / "golden/deeplesion_keyslice_val_expected.json").read_text())
    truth = key_slice_files.read_truth(real, "val").lesions
    found = key_slice_files.read_predictions(shared_data / "golden/deeplesion_keyslice_val_predictions.csv.gz")
    result = key_slices.evaluate(match(truth, found, iou), resamples=0)
    wanted = expected[f"iou_{iou}"]
    assert list(result.fp[:4]) == expected["fp"]
    np.testing.assert_allclose(result.sensitivity[:4], wanted["sensitivity"], rtol=0, atol=1e-9)
    np.testing.assert_allclose([result.average, result.end], [wanted["average"], wanted["max_fp"]], rtol=0, atol=1e-9)
    assert result.not_reached == (16,)
    assert (len(result.matches.volumes), len(truth)) == (expected["images"], expected["lesions"])


def test_the_real_table_is_that_of_the_public_codes_log(real):
    """4,817 images and 4,912 lesions of the test split, without 15 noisy lesions, 14 of which stand alone."""
    truth = key_slice_files.read_truth(real)
    assert (truth.lesions["image"].nunique(), len(truth.lesions)) == (4817, 4912)
    assert sum(reason == key_slice_files.NOISY for reason in truth.elsewhere.values()) == 4831 - 4817
    assert truth.lesions["type"].value_counts().iloc[[0, -1]].to_dict() == {"abdomen": 1171, "bone": 108}
    sizes = pd.Series(key_slices.size_ranges(truth.lesions["size_mm"])).value_counts(sort=False)
    assert sizes.tolist() == [1053, 1166, 834, 905, 632, 322]


# published numbers


def test_published_rows_are_whole():
    rates = KEY_SLICES[[f"fp_{rate:g}" for rate in RATES]].to_numpy()
    with np.errstate(invalid="ignore"):
        assert (np.diff(rates, axis=1) > 0).sum() == (~np.isnan(np.diff(rates, axis=1))).sum()
    assert not KEY_SLICES["system"].duplicated().any()
    assert (KEY_SLICES[["source", "protocol"]] != "").all(axis=None)
    whole = ~np.isnan(rates[:, :4]).any(axis=1)
    # printed averages are rounded means of unrounded numbers
    assert np.abs(rates[whole, :4].mean(axis=1) - KEY_SLICES["average"][whole]).max() < 0.00056
    average = KEY_SLICES.set_index("system")["average"].round(3)
    assert average["Faster R-CNN, 3 slices"] == 0.703 and average["3DCE, 27 slices"] == 0.756
    assert ((AT_OTHER_RATES["sensitivity"] > 0.7) & (AT_OTHER_RATES["sensitivity"] < 0.9)).all()
