"""Pickles from elsewhere give arrays or an error, and never run anything."""

import os
import pickle

import numpy as np
import pytest

from lensnb.safe_pickle import load_manual_boxes

BOXES = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])


class Attack:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_pass_in_every_protocol(tmp_path, protocol):
    file = tmp_path / "manual.pkl"
    content = {
        "val": {"a_001-009": BOXES},
        "test": {"b_001-009": np.zeros((0, 6)), "c_001-009": np.array([])},
    }
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    boxes = load_manual_boxes(file)
    np.testing.assert_array_equal(boxes["val"]["a_001-009"], BOXES)
    assert [v.shape for v in boxes["test"].values()] == [(0, 6), (0, 6)]


def test_malicious_pickle_is_refused_and_not_run(tmp_path):
    file = tmp_path / "bad.pkl"
    file.write_bytes(pickle.dumps({"val": {"a": Attack(tmp_path / "made")}}))
    with pytest.raises(ValueError, match="bad.pkl.*mkdir.*only numpy arrays"):
        load_manual_boxes(file)
    assert not (tmp_path / "made").exists()


def test_numpy_functions_are_refused_too(tmp_path):
    file = tmp_path / "bad.pkl"
    file.write_bytes(b"cnumpy\nfromfile\n(V/etc/hostname\ntR.")
    with pytest.raises(ValueError, match="numpy.fromfile"):
        load_manual_boxes(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "dictionary"),
        ({"val": [BOXES]}, "dictionary"),
        ({"val": {"a": BOXES[:, :5]}}, r"a: boxes have shape \(1, 5\)"),
        ({"val": {"a": BOXES * np.nan}}, "a: a coordinate is not finite"),
        ({"val": {"a": BOXES[:, ::-1]}}, "ends before it begins"),
        ({"val": {"a": "text"}}, "not numbers"),
    ],
)
def test_wrong_structure_names_file_and_volume(tmp_path, content, message):
    file = tmp_path / "manual.pkl"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=f"manual.pkl.*{message}"):
        load_manual_boxes(file)


@pytest.mark.parametrize("data", [b"", b"not a pickle", pickle.dumps({"val": {"a": BOXES}})[:-20]])
def test_broken_file_is_named(tmp_path, data):
    file = tmp_path / "broken.pkl"
    file.write_bytes(data)
    with pytest.raises(ValueError, match="broken.pkl"):
        load_manual_boxes(file)
    with pytest.raises(FileNotFoundError, match="absent.pkl"):
        load_manual_boxes(tmp_path / "absent.pkl")


def test_real_manual_test_set_has_the_published_counts(shared_data):
    boxes = load_manual_boxes(shared_data / "real" / "DeepLesion" / "DeepLesion_manual_1K_test_release.pkl")
    counts = {s: (len(v), sum(map(len, v.values())), sum(len(b) == 0 for b in v.values())) for s, v in boxes.items()}
    assert counts["val"][:2] == (200, 1292)
    assert counts["test"] == (800, 4155, 31)
