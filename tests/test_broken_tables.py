"""Tables, lists, JSON and workbooks as people and spreadsheets write them: read as they are meant, or an error of one
line that names file, place and cause. Never a row or an id that is silently another one."""

import csv
import json
import os
import pickle

import numpy as np
import openpyxl
import pandas as pd
import pytest
from broken import BOX, A, B, Place, change, deeplesion, luna, nih, noted, refused, run, table, told, write
from test_seeds import write_tables
from tiny import info_row

from lensnb import __main__ as cli
from lensnb import files
from lensnb.datasets import deeplesion as deeplesion_reader
from lensnb.evaluation import luna as luna_rules
from lensnb.evaluation import official
from lensnb.files.cells import FORMULA, for_spreadsheet, read_cells
from lensnb.lesanet import label_files, ontology, report_labels
from lensnb.lesanet.text_mining import read_sentences

BOM = b"\xef\xbb\xbf"
EVALUATE = "evaluate --truth {}/truth.csv --predictions {}/predictions.csv"
PICKLED = "evaluate --truth {}/truth.pkl --predictions {}/predictions.csv"
LUNA = "evaluate-luna --annotations {}/ann.csv --excluded {}/exc.csv --seriesuids {}/uids.csv --submission {}/sub.csv"
CHECK, PREPARE = "data check --root {}/raw", "prepare --profile smoke --data {}/raw --workers 1"
HEADER = "volume,x1,y1,z1,x2,y2,z2"
FOUND = f"{HEADER},score\n{A},10,10,5,19,19,9,.9\n"
MM = "seriesuid,coordX,coordY,coordZ"
INFO, CSV = "raw/DeepLesion/DL_info.csv", "raw/LUNA16/CSVFILES"
MANUAL, LABELS = "raw/DeepLesion/DeepLesion_manual_1K_test_release.pkl", "raw/DeepLesion/" + label_files.PUBLISHED


def add_row(**more):
    """The first lesion of `deeplesion` once more in DL_info.csv, with something else."""
    plain = {"series": "000001_01_01", "key": 7, "box": (10, 8, 22, 20), "slices": (5, 10), "spacing": (1.25, 1.25, 3)}

    def damage(at: Place) -> None:
        with (at / INFO).open("a") as file:
            csv.writer(file, lineterminator="\n").writerow(info_row(**(plain | {"size": 32} | more)))

    return damage


# sound files


def boxes(folder) -> None:
    (folder / "truth.csv").write_text(f"{HEADER}\n{A},10,10,5,19,19,9\n{B},,,,,,\n")
    (folder / "truth.pkl").write_bytes(pickle.dumps({"test": {A: np.array([[10.0, 10, 5, 19, 19, 9]])}, "val": {}}))
    (folder / "predictions.csv").write_text(FOUND)


def challenge(folder) -> None:
    """Three of four nodules are found before any false mark: CPM 0.75."""
    rows = [f"0000{i},{10 * i},-20.5,-100" for i in range(4)]
    (folder / "ann.csv").write_text(f"{MM},diameter_mm\n" + "".join(f"{row},8\n" for row in rows))
    (folder / "exc.csv").write_text(f"{MM},diameter_mm\n00000,90,90,90,-1\n")
    (folder / "uids.csv").write_text("".join(f"0000{i}\n" for i in range(4)))
    (folder / "sub.csv").write_text(f"{MM},probability\n00000,70,70,70,.1\n" + "".join(f"{r},.9\n" for r in rows[1:]))


def label_folder(folder) -> None:
    terms = "class,term,synonyms,term_exclusive,term_parents\nbodypart,lung,,,\ntype,nodule,nodules,,\n"
    (folder / "lesion_ontology.csv").write_text(terms)
    (folder / "sentences.csv").write_text("row,sentence\n1,nodule BOOKMARK in the lung\n2,no nodule BOOKMARK\n")
    (folder / "relations.csv").write_text("row,start,end,label,relation\n1,0,6,nodule,relevant\n")
    content = {"term_list": ["lung", "nodule"]}
    for row, split in enumerate(label_files.SPLITS):
        content |= {f"{split}_lesion_idxs": [row], f"{split}_relevant_labels": [[0]], f"{split}_uncertain_labels": [[]]}
    (folder / "mined.json").write_text(json.dumps(content))
    (folder / "hand.json").write_text(json.dumps([{"lesion_idx": 1, "expanded_terms": ["lung"]}]))
    workbook(["bodypart", "lung", "", "", ""])(Place(folder, None))


def figures(folder) -> None:
    write_tables(folder / "root/figures/phantom", 0.5, 0.01, "undecided")
    write_tables(folder / "root/figures/phantom-seed1", 0.6, 0.03, "holds")


def examples(folder) -> tuple:
    return report_labels.read_examples(folder, ontology.read_ontology(folder / "lesion_ontology.csv"))


# how they come to be broken


def bytes_of(name: str, edit):
    """Write a file anew, its bytes changed by a function."""

    def replace(at: Place) -> None:
        (at / name).write_bytes(edit((at / name).read_bytes()))

    return replace


def swap(name: str, old: str, new: str):
    return lambda at: change(at / name, old, new)


def utf16(content: bytes) -> bytes:
    return content.decode().encode("utf-16")


def workbook(*rows, edit=None, header=ontology.COLUMNS):
    def make(at: Place) -> None:
        book = openpyxl.Workbook()
        for row in (header, *rows):
            book.active.append(row)
        if edit:
            edit(book.active)
        book.save(at / "terms.xlsx")

    return make


def mined(**content):
    return lambda at: (at / "mined.json").write_text(json.dumps(json.loads((at / "mined.json").read_text()) | content))


def hand(*entries):
    return lambda at: (at / "hand.json").write_text(json.dumps(entries))


def pickled(content):
    return lambda at: (at / "truth.pkl").write_bytes(pickle.dumps(content))


def pipe(name: str):
    def make(at: Place) -> None:
        (at / name).unlink(missing_ok=True)
        os.mkfifo(at / name)

    return make


def a_folder(name: str):
    return lambda at: [(at / name).unlink(missing_ok=True), (at / name).mkdir()]


def link(name: str, to: str):
    return lambda at: [(at / name).unlink(missing_ok=True), (at / name).symlink_to(to)]


def rows(text: str):
    return write("predictions.csv", f"{HEADER},score\n{text}")


# fmt: off
CASES = [
    *table(  # what is read as it is meant
        "evaluate reads", boxes, EVALUATE,
        ("truth with a byte order mark", bytes_of("truth.csv", BOM.__add__), told("1.0000")),
        ("predictions with a byte order mark", bytes_of("predictions.csv", BOM.__add__), told("1.0000")),
        ("UTF-16 with its mark", bytes_of("predictions.csv", utf16), told("1.0000")),
        ("lines ended by CRLF", bytes_of("truth.csv", lambda b: b.replace(b"\n", b"\r\n")), told("1.0000")),
        ("lines ended by CR", bytes_of("truth.csv", lambda b: b.replace(b"\n", b"\r")), told("1.0000")),
        ("blanks around ids and names", swap("predictions.csv", ",", " , "), told("1.0000")),
        ("ids in quotes", swap("predictions.csv", A, f'"{A}"'), told("1.0000")),
        ("trailing commas", swap("predictions.csv", "\n", ",,\n"), told("1.0000")),
        ("empty lines, and of commas alone", swap("predictions.csv", "\n", "\n\n,,,,,,,\n"), told("1.0000")),
        ("pandas' index as first column", write("predictions.csv", f",{HEADER},score\n0,{A},10,10,5,19,19,9,.9\n"),
         told("1.0000")),
        ("no predictions at all", rows(""), told("0 predictions", "0.0000")),
        ("a prediction twice", rows(f"{A},10,10,5,19,19,9,.9\n" * 2), told("1 of the --predictions", "more than once")),
        ("a lesion twice", swap("truth.csv", f"{B},,", f"{A},10,10,5,19,19,9\n{B},,"),
         told("1 of the lesions of --truth", "more than once")),
    ),
    *table(
        "evaluate", boxes, EVALUATE,
        ("UTF-16 without its mark", bytes_of("truth.csv", lambda b: b.decode().encode("utf-16-le")),
         refused("truth.csv", "NUL", "UTF-16")),
        ("Latin-1", bytes_of("predictions.csv", lambda b: b + "é,1,1,1,2,2,2,.5\n".encode("latin-1")),
         refused("predictions.csv", "line 3", "0xe9", "UTF-8")),
        ("NUL bytes amid the file", bytes_of("predictions.csv", lambda b: b + b"\0" * 99), refused("line 3", "NUL")),
        ("files joined with their marks", bytes_of("predictions.csv", lambda b: BOM + b + BOM + b),
         refused("predictions.csv", "line 3", "byte order mark")),
        ("a workbook named csv", bytes_of("predictions.csv", lambda b: b"PK\x03\x04" + b), refused("Excel workbook")),
        ("a web page", write("predictions.csv", "<!DOCTYPE html><title>Log in</title>"), refused("a web page")),
        ("a pointer of git-lfs", write("truth.csv", "version https://git-lfs.github.com/spec/v1\n"),
         refused("git-lfs")),
        ("gzip that is cut off", write("truth.csv", b"\x1f\x8b\x08\0"), refused("truth.csv", "unpacked")),
        ("separated by semicolons", swap("predictions.csv", ",", ";"), refused("separated by ';'", "commas")),
        ("separated by tabs", swap("predictions.csv", ",", "\t"), refused("separated by tabs")),
        ("Excel's sep= line", write("predictions.csv", "sep=,\n" + FOUND), refused("first line is 'sep='")),
        ("decimal comma", swap("predictions.csv", ",.9", ',"0,9"'), refused("row 1", "score is '0,9'", "point")),
        ("decimal comma without quotes", swap("predictions.csv", ",.9", ",0,9"), refused("line 2 has 9 fields")),
        ("one field too many at the left", swap("predictions.csv", f"\n{A}", f"\n7,{A}"),
         refused("predictions.csv", "line 2 has 9 fields, the header 8")),
        ("one field too many in one row", rows(f"{A},10,10,5,19,19,9,.9\n{A},10,10,5,19,19,9,.8,x\n"),
         refused("line 3 has 9 fields")),
        ("a row that is cut off", rows(f"{A},10,10,5,19,19,9,.9\n{A},10,1"), refused("line 3 has 3 fields")),
        ("a truth that is cut off in a name", bytes_of("truth.csv", lambda b: b + b"000005_0"),
         refused("line 4 has 1")),
        ("a quotation mark that does not close", swap("predictions.csv", A, f'"{A}'), refused("line 2", "quotation")),
        ("a line without end", write("predictions.csv", f"{HEADER},score\n{'9' * 200_000}"),
         refused("line 2", "limit")),
        ("two columns score", swap("predictions.csv", "score\n", "score,score\n"), refused("score is there twice")),
        ("two columns of boxes", swap("truth.csv", "y1", "x1"), refused("truth.csv", "x1 is there twice")),
        ("True for a score", swap("predictions.csv", ".9", "True"), refused("row 1", "score is 'True', not a number")),
        ("a score in words", swap("predictions.csv", ".9", "high"), refused("row 1", "score is 'high'")),
        ("a score with an underscore", swap("predictions.csv", ".9", "1_0"), refused("score is '1_0'")),
        ("a score of 1e999", swap("predictions.csv", ".9", "1e999"), refused("the score is inf")),
        ("a percent sign", swap("predictions.csv", ".9", "90%"), refused("score is '90%'")),
        ("a coordinate of 1e200", swap("predictions.csv", "19,19", "1e200,19"),
         refused("row 1", "outside every image")),
        ("a true coordinate of 1e200", swap("truth.csv", "19,19", "1e200,19"), refused("truth.csv", "outside every")),
        ("an infinite coordinate", swap("truth.csv", "19,19", "inf,19"), refused("truth.csv", "not a finite number")),
        ("an inverted truth", swap("truth.csv", "10,10,5", "10,30,5"), refused("truth.csv", "row 1", "inverted")),
        ("a truth without rows", write("truth.csv", HEADER + "\n"), refused("truth.csv has no rows")),
        ("a truth without lesions", write("truth.csv", f"{HEADER}\n{A},,,,,,\n"),
         refused("truth.csv: no lesion in its")),
        ("both without rows", lambda at: [write("truth.csv", HEADER)(at), rows("")(at)],
         refused("truth.csv has no rows")),
        ("leading zeros lost", swap("predictions.csv", A, "1_01_01_005-010"), refused(A, "leading zeros were lost")),
        ("a name with an invisible blank", swap("predictions.csv", A, A + "\u200b"), refused("row 1", "invisible")),
        ("a name as a file's", swap("predictions.csv", A, f"x/{A}.nii.gz"), refused(A, "a file's name")),
        ("a folder as truth", a_folder("truth.csv"), refused("truth.csv is a folder")),
        ("a folder as predictions", a_folder("predictions.csv"), refused("predictions.csv is a folder")),
        ("a pipe", pipe("truth.csv"), refused("truth.csv is a pipe or a device")),
        ("a device without end", link("truth.csv", "/dev/zero"), refused("truth.csv is a pipe or a device")),
        ("a link to nothing", link("truth.csv", "nowhere"), refused("truth.csv does not exist")),
    ),
    *table("evaluate", boxes, EVALUATE + " --json {}/out",
           ("--json is a folder", a_folder("out"), refused("out is a folder")),
           ("--json is a pipe", pipe("out"), refused("out is a pipe or a device")),
           ("--json is a device", link("out", "/dev/null"), refused("out is a pipe or a device"))),
    *table("evaluate", boxes, EVALUATE + " --json {}/truth.csv",
           ("--json is the truth", lambda at: None, refused("truth.csv is what is read"))),
    *table(
        "evaluate a pickle", boxes, PICKLED,
        ("empty split", pickled({"test": {}}), refused("truth.pkl", "'test' has no volumes")),
        ("no split", pickled({}), refused("no split 'test'", "none at all")),
        ("boxes True", pickled({"test": {A: np.ones((1, 6), bool)}}), refused("truth.pkl", A, "not numbers")),
        ("boxes as text", pickled({"test": {A: [["1"] * 6]}}), refused(A, "not numbers")),
        ("a coordinate of 1e200", pickled({"test": {A: BOX * [1, 1, 1, 1e200, 1, 1]}}), refused(A, "outside every")),
        ("lists in lists without end", pickled({"test": {A: [[[[1]]]]}}), refused(A, "shape (1, 1, 1, 1)")),
        ("a csv named pkl", write("truth.pkl", FOUND), refused("truth.pkl is not a pickle")),
        ("a folder", a_folder("truth.pkl"), refused("truth.pkl is a folder")),
    ),
    *table("evaluate a pickle", boxes, lambda f: official.read_truth(f / "truth.pkl", ""),
           ("--split is empty", lambda at: None, refused("no split ''", "test, val"))),
    *table(
        "evaluate-luna reads", challenge, LUNA,
        ("all files as they should be", lambda at: None, told("0.7500")),
        ("scans with a byte order mark", bytes_of("uids.csv", BOM.__add__), told("0.7500")),
        ("every file with a byte order mark", lambda at: [bytes_of(name, BOM.__add__)(at) for name in
                                                         ("ann.csv", "exc.csv", "sub.csv")], told("0.7500")),
        ("scans in UTF-16", bytes_of("uids.csv", utf16), told("0.7500")),
        ("scans in quotes", write("uids.csv", "".join(f'"0000{i}"\n' for i in range(4))), told("0.7500")),
        ("scans with trailing commas and blanks", swap("uids.csv", "\n", " ,,\r\n"), told("0.7500")),
        ("quotes in a table", swap("sub.csv", "00001", ' "00001" '.strip()), told("0.7500")),
        ("a mark elsewhere", swap("sub.csv", "00000", "9.9"), told("1 marks lie on scans")),
        ("no marks", write("sub.csv", f"{MM},probability\n"), told("has no marks")),
        ("a nodule twice", swap("ann.csv", "00003,30", "00002,20,-20.5,-100,8\n00003,30"), told("1 nodules of --ann")),
        ("a mark twice", swap("sub.csv", "00000,70,70,70,.1", "00000,70,70,70,.1\n00000,70,70,70,.1"),
         told("1 marks are there more than once")),
    ),
    *table(
        "evaluate-luna", challenge, LUNA,
        ("zeros lost in the marks", swap("sub.csv", "0000", ""), refused("sub.csv", "should be 0000", "leading zeros")),
        ("zeros lost in one mark", swap("sub.csv", "00001", "1"), refused("1 should be 00001")),
        ("zeros lost in the nodules", swap("ann.csv", "0000", ""), refused("ann.csv", "leading zeros")),
        ("zeros lost in the excluded", swap("exc.csv", "0000", ""), refused("exc.csv", "leading zeros")),
        ("zeros lost in the list", swap("uids.csv", "0000", ""), refused("leading zeros")),
        ("marks as pandas' floats", swap("sub.csv", "0000", "0.0,"), refused("line 2 has 6 fields")),
        ("ids as floats", lambda at: [change(at / "sub.csv", f"0000{i},", f"{i}.0,") for i in range(4)],
         refused("0.0 should be 00000", "as a number")),
        ("ids in scientific notation", swap("sub.csv", "00003", "1.30E+63"), refused("1.30E+63", "as a number")),
        ("no mark on a listed scan", swap("sub.csv", "0000", "7.7."), refused("sub.csv: none of its 4 marks", "7.7.0")),
        ("no nodule on a listed scan", swap("ann.csv", "0000", "7.7."), refused("ann.csv: none of its 4 nodules")),
        ("no nodules", write("ann.csv", f"{MM},diameter_mm\n"), refused("ann.csv has no rows")),
        ("scans in one line", write("uids.csv", "00000,00001,00002\n"), refused("uids.csv, line 1", "one a line")),
        ("scans by semicolons", write("uids.csv", "00000;00001\n"), refused("uids.csv, line 1", "one a line")),
        ("scans with a header", bytes_of("uids.csv", lambda b: b"SeriesUID\n" + b), refused("line 1 is a header")),
        ("scans with a mark and a header", bytes_of("uids.csv", lambda b: BOM + b"seriesuid\n" + b), refused("header")),
        ("no scans", write("uids.csv", BOM + b"\r\n\r\n"), refused("uids.csv: no series uid")),
        ("a scan twice, once with blanks", bytes_of("uids.csv", lambda b: b + b" 00001 \n"),
         refused("repeated", "00001")),
        ("scans is a folder", a_folder("uids.csv"), refused("uids.csv is a folder")),
        ("scans is binary", write("uids.csv", b"\x89\xff\0" * 9), refused("uids.csv can not be read as text")),
        ("an id is missing", swap("sub.csv", "00001", ""), refused("sub.csv, row 2: no seriesuid")),
        ("one field too many at the left", swap("sub.csv", "\n0", "\n7,0"),
         refused("line 2 has 6 fields, the header 5")),
        ("two probabilities", swap("sub.csv", "probability", "probability,probability"), refused("twice")),
        ("True for a probability", swap("sub.csv", ".1", "TRUE"), refused("row 1", "'TRUE', not a number")),
        ("an infinite probability", swap("sub.csv", ".1", "-inf"), refused("row 1", "not a finite number")),
        ("a coordinate of 1e200", swap("sub.csv", "70,70", "1e200,70"), refused("row 1", "farther than any scan")),
        ("a diameter of 0", swap("ann.csv", ",8", ",0"), refused("ann.csv, row 1", "positive, or -1")),
        ("a diameter of -8", swap("exc.csv", ",-1", ",-8"), refused("exc.csv, row 1", "positive, or -1")),
        ("separated by semicolons", swap("ann.csv", ",", ";"), refused("ann.csv", "separated by ';'")),
    ),
    *table(
        "DeepLesion", deeplesion, PREPARE,
        ("separated by semicolons", swap(INFO, ",", ";"), refused("DL_info.csv", "separated by ';'")),
        ("a field too many", swap(INFO, "\n0", "\n7,0"), refused("DL_info.csv", "line 2 has 19 fields")),
        ("a row cut off", bytes_of(INFO, lambda b: b[:-8]), refused("DL_info.csv", "line 3 has")),
        ("two columns of boxes", swap(INFO, "Measurement_coordinates", "Bounding_boxes"), refused("twice")),
        ("rows of one sub-volume with other spacings", add_row(spacing=(1.25, 1.25, 5)),
         refused("DL_info.csv, line 4", "spacing_x or", "another than in the row before of this sub-volume")),
        ("a patient for training and for test", add_row(series="000001_01_02", split=3),
         refused("DL_info.csv, line 4", "split is another than in the row before of this patient")),
        ("a lesion twice", add_row(), noted("000001_01_01_005-010", "lesion that is there before: dl00002")),
        ("a box of 1e200", swap(INFO, "22, 20", "1e200, 20"), refused("line 2", "Bounding_boxes")),
        ("digits of another script", swap(INFO, "000001_01_01_", "٠٠٠٠٠١_01_01_"), refused("line 2", "File_name")),
        ("wrong after empty lines", lambda at: [swap(INFO, "\n", "\n\n")(at), swap(INFO, "04_01_01_007", "4")(at)],
         refused("DL_info.csv, line 5", "File_name")),
        ("a pipe for the table", pipe(INFO), refused("DL_info.csv is a pipe")),
        ("manual names that climb", lambda at: (at / MANUAL).write_bytes(pickle.dumps({"test": {"../../x": BOX}})),
         refused("sub-volume ../../x", "not like")),
    ),
    *table(
        "LUNA16", luna, PREPARE,
        ("a nodule twice", lambda at: bytes_of(f"{CSV}/annotations.csv", lambda b: b + b.split(b"\n")[1])(at),
         refused("annotations.csv, line 3", "there before")),
        ("a table without rows", lambda at: bytes_of(f"{CSV}/annotations.csv", lambda b: b.split(b"\n")[0])(at),
         refused("annotations.csv has no rows")),
        ("several scans on a line", write(f"{CSV}/seriesuids.csv", "1.2.0,1.2.1\n"),
         refused("seriesuids.csv, line 1: 2 fields", "one seriesuid a line")),
        ("a nodule of a scan that is not listed", write(f"{CSV}/seriesuids.csv", "1.2.1\n"),
         refused("annotations.csv has nodules of 1.2.0", "seriesuids.csv does not list")),
        ("a field too many", swap(f"{CSV}/annotations.csv", "\n1", "\n7,1"), refused("line 2 has 6 fields")),
        ("True for a diameter", swap(f"{CSV}/annotations.csv", ",8.0", ",True"), refused("line 2", "diameter")),
        ("a position of 1e200", swap(f"{CSV}/annotations.csv", "1.2.0,", "1.2.0,1e20"), refused("line 2", "position")),
        ("an id that climbs", swap(f"{CSV}/annotations.csv", "1.2.0", "../../../x"),
         refused("annotations.csv has nodules of ../../../x", "does not list")),
        ("an id of 300 characters", swap(f"{CSV}/annotations.csv", "1.2.0", "1" * 300), refused("1" * 300, "misspelt")),
        ("scans is a folder", a_folder(f"{CSV}/seriesuids.csv"), refused("seriesuids.csv is a folder")),
    ),
    *table(
        "data check", deeplesion, CHECK,
        ("labels that are no JSON", write(LABELS, "{"), told("unreadable table", "not valid JSON", status=1)),
        ("labels with numbers for lists", write(LABELS, '{"train_lesion_idxs": 5}'),
         told("unreadable table", "should be lists", status=1)),
        ("labels is a folder", a_folder(LABELS), told("unreadable table", "is a folder", status=1)),
        ("the table is a folder", a_folder(INFO), told("DL_info.csv is a folder", status=1)),
    ),
    *table("data check", nih, CHECK, ("texts with a pipe in them", pipe(
        "raw/NIH-LN/MED_ABD_LYMPH_ANNOTATIONS/ABD_LYMPH_003/ABD_LYMPH_003_lymphnodes_indices.txt"),
        told("broken annotations", "is a pipe", status=1)), ("an infinite index", write(
            "raw/NIH-LN/MED_ABD_LYMPH_ANNOTATIONS/ABD_LYMPH_003/ABD_LYMPH_003_lymphnodes_indices.txt", "1 inf 2\n"),
            told("broken annotations", "not finite", status=1))),
    *table("data check", deeplesion, CHECK + " --list {}/out",
           ("--list is a folder", a_folder("out"), refused("out is a folder")),
           ("--list without an ending", lambda at: None, refused("out must end with .csv or .npz"))),
    *table("labels", label_folder, "labels {}/sentences.csv --ontology {}/lesion_ontology.csv --output {}/out.csv",
           ("--output is a folder", a_folder("out.csv"), refused("out.csv is a folder"))),
    *table("labels", label_folder, "labels {}/sentences.csv --ontology {}/terms.xlsx --output {}/sentences.csv",
           ("--output is the input", lambda at: None, refused("sentences.csv is what is read"))),
    *table(
        "sentences", label_folder, lambda f: read_sentences(f / "sentences.csv"),
        ("without rows", write("sentences.csv", "row,sentence\n"), refused("sentences.csv has no rows")),
        ("a comma without quotes", write("sentences.csv", "row,sentence\n1,a BOOKMARK, large\n"),
         refused("line 2 has 3")),
        ("an empty one after an empty line", write("sentences.csv", "row,sentence\n\n1,\n"),
         refused("line 3", "empty")),
        ("two columns", write("sentences.csv", "sentence,sentence\na BOOKMARK,b\n"), refused("there twice")),
        ("by tabs", write("sentences.csv", "row\tsentence\n1\ta BOOKMARK\n"), refused("separated by tabs")),
        ("Latin-1", write("sentences.csv", "sentence\nfoyer hépatique BOOKMARK\n".encode("latin-1")), refused("UTF-8")),
        ("a folder", a_folder("sentences.csv"), refused("sentences.csv is a folder")),
    ),
    *table(
        "relations", label_folder, lambda f: examples(f),
        ("a place that is a word", swap("relations.csv", ",0,6", ",a,6"),
         refused("relations.csv, line 2: start is 'a'")),
        ("a place between characters", swap("relations.csv", ",0,6", ",0,5.5"), refused("line 2: end is '5.5'")),
        ("a place of 1e300", swap("relations.csv", ",0,6", ",0,1e300"), refused("line 2: end is '1e300'")),
        ("a place that is blank", swap("relations.csv", ",0,6", ",,6"), refused("line 2: start is ''")),
        ("a label that is none", swap("relations.csv", "6,nodule", "6,mass"), refused("line 2", "no label 'mass'")),
        ("a lesion with two sentences", swap("sentences.csv", "\n2,", "\n1,"),
         refused("more than one sentence of row '1'")),
    ),
    *table(
        "ontology csv", label_folder, lambda f: ontology.read_ontology(f / "lesion_ontology.csv"),
        ("without rows", write("lesion_ontology.csv", ",".join(ontology.COLUMNS)), refused("has no rows")),
        ("parents joined by commas", swap("lesion_ontology.csv", "nodules,,", 'nodules,,"lung, nodule"'),
         refused("row 3", "'lung, nodule'", "join terms by '|'")),
        ("its own parent", swap("lesion_ontology.csv", "nodules,,", "nodules,,nodule"), refused("their own ancestors")),
        ("a term twice but for blanks", swap("lesion_ontology.csv", "bodypart,lung", "bodypart, nodule "),
         refused("more t")),
    ),
    *table(
        "ontology xlsx", label_folder, lambda f: ontology.read_ontology(f / "terms.xlsx"),
        ("without rows", workbook(), refused("terms.xlsx has no rows")),
        ("a column missing", workbook(header=ontology.COLUMNS[:4]), refused("has no column term_parents")),
        ("a column twice", workbook(header=(*ontology.COLUMNS, "term")), refused("more than one column term")),
        ("an empty sheet", workbook(header=()), refused("has no column class")),
        ("a formula", workbook(["type", '="no"&"dule"', "", "", ""]), refused("terms.xlsx, cell B2", "formula")),
        ("an error of Excel", workbook(["type", "#REF!", "", "", ""]), refused("cell B2", "#REF!")),
        ("merged cells", workbook(["type", "a", "", "", "p"], ["type", "b"], edit=lambda s: s.merge_cells("E2:E3")),
         refused("E2:E3 are merged")),
        ("a circle", workbook(["type", "a", "", "", "b"], ["type", "b", "", "", "a"]), refused("a, b are their own")),
        ("an unknown class", workbook([7, "a", "", "", ""]), refused("row 2: class '7'")),
        ("an empty term", workbook(["type", None, "x", "", ""]), refused("row 2: the term is empty")),
        ("a csv named xlsx", write("terms.xlsx", "class,term\n"), refused("terms.xlsx is not a readable table")),
        ("a folder", a_folder("terms.xlsx"), refused("terms.xlsx is a folder")),
    ),
    *table(
        "mined labels", label_folder, lambda f: label_files.read_mined(f / "mined.json"),
        ("a name twice", swap("mined.json", '{"term_list"', '{"term_list": [], "term_list"'), refused("there twice")),
        ("NaN", swap("mined.json", '"train_lesion_idxs": [0]', '"train_lesion_idxs": [NaN]'),
         refused("NaN is no number")),
        ("nested too deep", write("mined.json", "[" * 200_000), refused("mined.json is not valid JSON")),
        ("a list", write("mined.json", "[]"), refused("should hold names and values")),
        ("a row as float", mined(train_lesion_idxs=[1.5]), refused("train_lesion_idxs has '1.5'")),
        ("a row as True", mined(train_lesion_idxs=[True]), refused("train_lesion_idxs has 'True'")),
        ("a row below 0", mined(train_lesion_idxs=[-1]), refused("train_lesion_idxs has '-1'")),
        ("a row beyond all", mined(train_lesion_idxs=[10**30]), refused("train_lesion_idxs has '1000")),
        ("a text for a list", mined(train_lesion_idxs="12"), refused("train_lesion_idxs should be a list")),
        ("a number for a lesion's labels", mined(train_relevant_labels=[1]), refused("a list of label numbers")),
        ("a label as text", mined(train_relevant_labels=[["lung"]]), refused("labels ['lung'] of lesion 0")),
        ("a label below 0", mined(train_relevant_labels=[[-1]]), refused("labels [-1]")),
        ("a term twice", mined(term_list=["lung", "lung"]), refused("term_list should hold names")),
        ("a term that is a number", mined(term_list=["lung", 3]), refused("term_list should hold names")),
        ("UTF-16 without its mark", bytes_of("mined.json", lambda b: b.decode().encode("utf-16-le")), refused("NUL")),
        ("a folder", a_folder("mined.json"), refused("mined.json is a folder")),
    ),
    *table(
        "hand labels", label_folder, lambda f: label_files.read_complete(f / "hand.json", ("lung",)),
        ("a dictionary", write("hand.json", "{}"), refused("should hold a list")),
        ("an entry that is a number", hand(3), refused("see its entry 0")),
        ("terms as one text", hand({"lesion_idx": 1, "expanded_terms": "lung"}), refused("see its entry 0")),
        ("a row as float", hand({"lesion_idx": 1.5, "expanded_terms": []}), refused("lesion_idx has '1.5'")),
        ("a lesion twice", hand(*[{"lesion_idx": 1, "expanded_terms": []}] * 2),
         refused("lists lesion 1 more than once")),
    ),
    *table(
        "seeds", figures, "seeds",
        ("a table without its column", write("root/figures/phantom/table2.csv", "row\na\n"),
         refused("phantom/table2.csv has no column average")),
        ("words for numbers", swap("root/figures/phantom/table2.csv", "0.5\nb", "half\nb"),
         refused("phantom/table2.csv", "average should hold numbers")),
        ("a row twice", swap("root/figures/phantom/table2.csv", "b,", "a,"), refused("'row a' more than once")),
        ("a row cut off", bytes_of("root/figures/phantom/claims.csv", lambda b: b[:-12]),
         refused("claims.csv", "line 2")),
        ("a table that is a folder", a_folder("root/figures/phantom/claims.csv"), refused("claims.csv is a folder")),
        ("no verdict", swap("root/figures/phantom/claims.csv", "verdict", "v"), refused("no column verdict")),
    ),
]
# fmt: on


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_broken_tables(case, tmp_path, monkeypatch):
    run(case, tmp_path, monkeypatch)


def test_the_rows_are_distinct():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 150


@pytest.mark.parametrize(
    ("make", "read"),
    [
        (challenge, lambda f: str(report_of(f))),
        (label_folder, lambda f: str(label_files.read_mined(f / "mined.json"))),
        (label_folder, lambda f: str(ontology.read_ontology(f / "lesion_ontology.csv"))),
        (
            label_folder,
            lambda f: str(report_labels.read_examples(f, ontology.read_ontology(f / "lesion_ontology.csv"))),
        ),
        (deeplesion, lambda f: deeplesion_reader.read_info(f / INFO).to_csv()),
    ],
)
def test_a_byte_order_mark_changes_nothing(make, read, tmp_path):
    make(tmp_path)
    before = read(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.suffix in (".csv", ".json"):
            path.write_bytes(BOM + path.read_bytes())
    assert read(tmp_path) == before


def report_of(folder) -> dict:
    return luna_rules.evaluate_files(*(folder / name for name in ("ann.csv", "exc.csv", "uids.csv", "sub.csv")))


def test_cells_are_where_their_names_are(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(BOM + b' id ,"a, b",sentence,\r\n\r\n 007 ,"1,5", two words ,\r\n"x\ny",,"q ""r""",\r\n,,,\r\n')
    cells = read_cells(path, exact=("sentence",))
    assert cells.index.tolist() == [3, 4] and list(cells) == ["id", "a, b", "sentence"]
    assert cells.to_numpy().tolist() == [["007", "1,5", " two words "], ["x\ny", "", 'q "r"']]


def test_what_spreadsheets_would_run_is_text(tmp_path):
    texts = [f"{start}cmd|'/C calc'!A0" for start in FORMULA]
    plain = ["-5", "+1.5e3", "a=b", "", "'quoted", "nodule - BOOKMARK"]
    table = pd.DataFrame({"=name": [*texts, *plain], "n": np.linspace(-1, 1, len(texts) + len(plain))})
    shown = for_spreadsheet(table)
    assert list(shown) == ["'=name", "n"] and shown["n"].equals(table["n"])
    assert shown["'=name"].tolist() == [*(f"'{text}" for text in texts), *plain]
    files.write_table(table, tmp_path / "own.csv")  # what lensnb reads back stays as it is
    assert files.read_table(tmp_path / "own.csv")["=name"].tolist()[:3] == texts[:3]


def test_a_list_for_people_holds_no_formula(tmp_path):
    nih(tmp_path)
    case = tmp_path / "raw/NIH-LN/CT Lymph Nodes/=HYPERLINK(1)_LYMPH_1"
    case.mkdir()
    assert cli.main(["data", "check", "--root", str(tmp_path / "raw"), "--list", str(tmp_path / "list.csv")]) == 1
    volumes = pd.read_csv(tmp_path / "list.csv")["volume"].dropna().tolist()
    assert "'=HYPERLINK(1)_LYMPH_1" in volumes


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    for name, target in (("a.json", tmp_path / "disk/a.json"), ("b.json", tmp_path / "disk/b.json")):
        if name == "a.json":
            target.write_text("old")
        (tmp_path / name).symlink_to(target)
        files.write_json({"x": 1}, tmp_path / name)
        assert (tmp_path / name).is_symlink() and files.read_json(target) == {"x": 1}
    assert sorted(p.name for p in (tmp_path / "disk").iterdir()) == ["a.json", "b.json"]


@pytest.mark.parametrize("folder", ["10_luna_bom", "12_luna_all_elsewhere"])
def test_the_faults_that_users_met(shared_data, folder, capsys):
    faults = shared_data / "faults" / folder
    if not faults.is_dir():
        pytest.skip(f"the folder of faults has no {folder}")
    with_mark = folder.startswith("10")
    names = ["ann", "exc", "ser", "bm_sub"] if with_mark else ["annotations", "excluded", "seriesuids", "submission"]
    options = ["--annotations", "--excluded", "--seriesuids", "--submission"]
    results = []
    for scans in (names[2], "bm_ser" if with_mark else names[2]):
        chosen = [*names[:2], scans, names[3]]
        words = [w for option, name in zip(options, chosen, strict=True) for w in (option, str(faults / f"{name}.csv"))]
        results.append((cli.main(["evaluate-luna", *words]), *capsys.readouterr()))
    assert results[0] == results[1]
    status, output, error = results[0]
    if with_mark:
        assert status == 0 and output.split()[-1] == "0.7500" and not error
    else:
        assert status == 2 and not output and "1 should be 00001: leading zeros were lost" in error
