"""Numbers in place of identifiers, as patient_study_series (DeepLesion Sec. 2.2.1), and the split by patients.

Patients are numbered in the order of a checksum, which is that of no alphabet and no calendar. It is one of their
identifiers together with those of all series in the dataset: the same files give the same numbers, and who has a list
of a hospital's patients, but not the files, can not find the numbers out. A patient's studies are numbered by date, so
that follow-ups can be told; series by their number in the scanner. Only what has a bookmark in the dataset gets a
number.
"""

import hashlib

import pandas as pd

from lensnb.bookmarks.series import Series

MOST = {"patient": 999_999, "study": 99, "series": 99}  # that the names of files have room for
SHARES = (0.70, 0.85)  # of the patients for training, and for training and validation (DeepLesion Sec. 3)
TRAIN, VALIDATION, TEST = 1, 2, 3


def number(bookmarks: pd.DataFrame, series: dict[str, Series]) -> pd.DataFrame:
    """One row a series that bookmarks lie on: series_uid, patient, study, series (numbers), name, split.

    `bookmarks`: series_uid, study_uid, patient_id, issuer of those in the dataset. A patient without an identifier is
    as many patients as there are studies. Raises ValueError for more than the names of files have room for.
    """
    table = bookmarks[["series_uid", "study_uid", "patient_id", "issuer"]].drop_duplicates("series_uid").copy()
    salt = "|".join(sorted(table["series_uid"]))
    table["key"] = [
        hashlib.sha256("|".join((salt, *((number, issuer) if number else ("", study)))).encode()).hexdigest()
        for number, issuer, study in table[["patient_id", "issuer", "study_uid"]].to_numpy()
    ]
    table["date"] = [_date(series[uid]) for uid in table["series_uid"]]
    table["number"] = [_whole(series[uid].tags.get("SeriesNumber")) for uid in table["series_uid"]]
    first = table.groupby("study_uid")["date"].transform("min")
    table = table.assign(date=first).sort_values(["key", "date", "study_uid", "number", "series_uid"], kind="stable")
    table["patient"] = pd.factorize(table["key"])[0] + 1
    studies = table.groupby("patient")["study_uid"]
    table["study"] = studies.transform(lambda part: pd.factorize(part)[0] + 1).astype(int)
    table["series"] = table.groupby(["patient", "study"]).cumcount() + 1
    for name, most in MOST.items():
        if len(table) and table[name].max() > most:
            raise ValueError(
                f"a {name} has the number {table[name].max()}; DeepLesion's file names have room for {most}. Make "
                "several datasets"
            )
    patients = table["patient"].max() if len(table) else 0
    train, validation = (round(share * patients) for share in SHARES)
    table["split"] = [TRAIN if n <= train else VALIDATION if n <= validation else TEST for n in table["patient"]]
    table["name"] = [f"{p:06d}_{s:02d}_{n:02d}" for p, s, n in table[["patient", "study", "series"]].to_numpy()]
    return table[["series_uid", "patient", "study", "series", "name", "split"]].reset_index(drop=True)


def _date(series: Series) -> str:
    """When a study was made, as text that sorts; empty if it does not say."""
    return "".join(str(series.tags.get(name) or "") for name in ("StudyDate", "StudyTime"))


def _whole(value: object) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
