"""Pickles from elsewhere give arrays or an error, and never run anything."""

import os
import pickle

import numpy as np
import pytest

from lensnb.datasets.manual_boxes import load_manual_boxes

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
    ("stream", "asks"),
    [
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),  # dotted names of protocol 4
        (b"cbuiltins\neval\n(V1\ntR.", "builtins.eval"),
        (b"(V1\nios\nsystem\n.", "os.system"),  # INST
        (b"(cposix\nsystem\nV1\no.", "posix.system"),  # OBJ
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "rot13"),
        (b"cnumpy.core.multiarray\nfromstring\n.", "numpy.core.multiarray.fromstring"),
        (b"Pname\n.", "persistent"),
    ],
)
def test_every_way_to_ask_for_a_name_is_closed(tmp_path, stream, asks):
    file = tmp_path / "bad.pkl"
    file.write_bytes(stream)
    with pytest.raises(ValueError, match=f"bad.pkl is not a pickle of numpy arrays: .*{asks}"):
        load_manual_boxes(file)


def test_attack_inside_an_array_is_refused(tmp_path):
    """An array of objects holds pickles of anything; its class is numpy's own."""
    file = tmp_path / "bad.pkl"
    file.write_bytes(pickle.dumps({"val": {"a": np.array([[Attack(tmp_path / "made")]], dtype=object)}}))
    with pytest.raises(ValueError, match="only numpy arrays"):
        load_manual_boxes(file)
    assert not (tmp_path / "made").exists()


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
