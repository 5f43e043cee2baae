"""Evaluating files: what is read, what is refused and by which name, and what the JSON holds."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest

from lensnb.evaluation import froc, official

LESION = [10, 10, 5, 19, 19, 9]
HEADER = "volume,x1,y1,z1,x2,y2,z2"


@pytest.fixture
def truth_csv(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text(f"{HEADER}\na,10,10,5,19,19,9\nb,,,,,,\na,40,40,5,49,49,9\nc,10,10,5,19,19,9\n")
    return path


@pytest.fixture
def predictions_csv(tmp_path):
    path = tmp_path / "predictions.csv"
    # c has no prediction; the second row repeats the first hit; the third lies in the volume without lesions
    path.write_text(f"{HEADER},score,note\na,10,10,5,19,19,9,0.9,x\na,10,10,5,18,19,9,0.8,\nb,10,10,5,19,19,9,0.7,\n")
    return path


def test_csv_truth_with_a_volume_without_lesions(truth_csv):
    truth = official.read_truth(truth_csv)
    assert {volume: len(boxes) for volume, boxes in truth.items()} == {"a": 2, "b": 0, "c": 1}
    assert truth["a"].tolist() == [LESION, [40, 40, 5, 49, 49, 9]]


def test_result(truth_csv, predictions_csv):
    result = json.loads(json.dumps(official.evaluate_files(truth_csv, predictions_csv)))
    # one of three lesions is found at once, one false positive in three volumes
    assert result["fp"] == [0.125, 0.25, 0.5, 1, 2, 4, 8]
    assert result["sensitivity"] == pytest.approx([1 / 3] * 7, abs=1e-15)
    assert result["average"] == pytest.approx(1 / 3, abs=1e-15)
    assert 0 <= result["average_low"] <= 1 / 3 <= result["average_high"] <= 1
    assert (result["volumes"], result["patients"], result["lesions"], result["predictions"]) == (3, 3, 3, 3)
    assert result["volumes_without_predictions"] == 1
    assert set(result["stricter"]) == {"iou", "one_to_one", "iou_one_to_one"}
    assert result["stricter"]["one_to_one"]["sensitivity"] == pytest.approx([1 / 3] * 7)
    text = official.report(result)
    assert "IoBB >= 0.3" in text and "0.3333" in text


def test_stricter_rules_differ(tmp_path):
    truth, predictions = tmp_path / "truth.csv", tmp_path / "predictions.csv"
    truth.write_text(f"{HEADER}\na,10,10,5,19,19,9\na,20,10,5,29,19,9\n")
    # a speck inside the first lesion, then the same again, then a box over both lesions
    predictions.write_text(f"{HEADER},score\na,12,12,6,13,13,7,.9\na,12,12,6,13,13,7,.8\na,10,10,5,29,19,9,.7\n")
    result = official.evaluate_files(truth, predictions)
    # official: speck, nothing, and the second lesion, never a false positive
    assert result["sensitivity"] == [1.0] * 7
    # IoU: the specks are false positives, two of them before both lesions
    assert result["stricter"]["iou"]["sensitivity"] == [0, 0, 0, 0, 1, 1, 1]
    # one to one: speck, false positive, second lesion
    assert result["stricter"]["one_to_one"]["sensitivity"] == [0.5, 0.5, 0.5, 1, 1, 1, 1]
    # both: two false positives, then one of the two lesions
    assert result["stricter"]["iou_one_to_one"]["sensitivity"] == [0, 0, 0, 0, 0.5, 0.5, 0.5]


def test_pickle_splits(tmp_path, predictions_csv):
    path = tmp_path / "truth.pkl"
    test = {"a": np.array([LESION], float), "b": np.zeros((0, 6)), "c": np.zeros((0, 6))}
    path.write_bytes(pickle.dumps({"val": {"z": np.array([LESION], float)}, "test": test}))
    assert list(official.read_truth(path, "val")) == ["z"]
    assert official.evaluate_files(path, predictions_csv)["average"] == 1.0
    with pytest.raises(ValueError, match="truth.pkl has no split 'train'; it has val, test"):
        official.read_truth(path, "train")
    # predictions for another split than the one chosen
    with pytest.raises(ValueError, match="2 volume.s. that the truth does not have, the first is a"):
        official.evaluate_files(path, predictions_csv, split="val")


def test_scores_are_read_exactly(tmp_path):
    numbers = np.random.default_rng(0).normal(size=(200, 1)) * 10 ** np.random.default_rng(1).uniform(-9, 9, (200, 1))
    path = tmp_path / "p.csv"
    path.write_text("volume,score\n" + "\n".join(f"a,{number!r}" for number in numbers.ravel().tolist()))
    assert official.read_boxes(path, ["volume", "score"])["score"].tolist() == numbers.ravel().tolist()


def test_a_numeric_volume_name_stays_text(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text(f"{HEADER}\n007,10,10,5,19,19,9\n")
    assert list(official.read_truth(path)) == ["007"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,10,10,5,19,19,9,nan", "row 1: the score is nan"),
        ("a,10,10,5,19,19,9,", "row 1: the score is nan"),
        ("a,10,10,5,19,19,9,inf", "row 1: the score is inf"),
        ("a,10,10,5,19,19,9,.5\na,10,10,5,,19,9,.5", "row 2: a coordinate is not a finite number"),
        ("a,10,10,5,9,19,9,.5", "row 1: an inverted box"),
        ("a,10,10,5,19,19,4,.5", "row 1: an inverted box"),
        ("a,10,ten,5,19,19,9,.5", "row 1: y1 is 'ten', not a number"),
        (",10,10,5,19,19,9,.5", "row 1: no volume is named"),
        ("x,10,10,5,19,19,9,.5", "name 1 volume.* the first is x"),
    ],
)
def test_bad_predictions_name_file_and_row(truth_csv, tmp_path, rows, message):
    path = tmp_path / "bad.csv"
    path.write_text(f"{HEADER},score\n{rows}\n")
    with pytest.raises(ValueError, match=f"bad.csv.*{message}"):
        official.evaluate_files(truth_csv, path)


def test_missing_columns_and_files(truth_csv, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("volume,x1,y1,x2,y2,score\na,1,1,2,2,.5\n")
    with pytest.raises(ValueError, match=r"bad.csv: column\(s\) z1, z2 missing"):
        official.evaluate_files(truth_csv, path)
    path.write_text("")
    with pytest.raises(ValueError, match="bad.csv can not be read as a csv"):
        official.evaluate_files(truth_csv, path)
    with pytest.raises(FileNotFoundError, match="none.csv does not exist"):
        official.evaluate_files(truth_csv, tmp_path / "none.csv")
    bad_truth = tmp_path / "bad_truth.csv"
    bad_truth.write_text(f"{HEADER}\na,1,1,1,2,2,0\n")
    with pytest.raises(ValueError, match="bad_truth.csv: the truth, row 1: an inverted box"):
        official.read_truth(bad_truth)


def test_no_predictions(truth_csv, tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text(f"{HEADER},score\n")
    result = official.evaluate_files(truth_csv, path)
    assert result["sensitivity"] == [0] * 7 and result["volumes_without_predictions"] == 3


def test_golden_files(shared_data):
    expected = json.loads((shared_data / "golden/deeplesion_froc_expected.json").read_text())
    pickled = shared_data / "real/DeepLesion/DeepLesion_manual_1K_test_release.pkl"
    for key, wanted in expected.items():
        split, overlap, threshold = key.split("/")
        result = official.evaluate_files(
            pickled,
            shared_data / "golden/deeplesion_val_predictions.csv",
            split,
            overlap.lower(),
            float(threshold),
        )
        np.testing.assert_allclose(result["sensitivity"], wanted["sensitivity"], rtol=0, atol=1e-9)
        assert result["patients"] == 99 and result["lesions"] == 1292
        if overlap == "IOBB" and threshold == "0.3":
            iou = expected[f"{split}/IOU/0.3"]["sensitivity"]
            np.testing.assert_allclose(result["stricter"]["iou"]["sensitivity"], iou, rtol=0, atol=1e-9)


def test_the_truth_itself_is_perfect(shared_data):
    truth = official.read_truth(shared_data / "real/DeepLesion/DeepLesion_manual_1K_test_release.pkl", "test")
    rows = pd.concat([pd.DataFrame(boxes, columns=froc.BOX3D).assign(volume=name) for name, boxes in truth.items()])
    result = official.evaluate(truth, rows.assign(score=1.0))
    assert (result["lesions"], result["volumes"], result["patients"], result["average"]) == (
        4155,
        800,
        519,
        1.0,
    )
    strict = {name: value["average"] for name, value in result["stricter"].items()}
    assert strict["iou"] == strict["iou_one_to_one"] == 1.0
    # a lesion inside another lies wholly in both, and one to one by IoBB may give it the wrong one
    assert 0.99 < strict["one_to_one"] < 1
