"""The labels of lesions and what they say of one another: parents, and labels that exclude each other.

LesaNet Sec. 3.1. The published spreadsheet (lesion_ontology_181022.xlsx) has one row for each term; the phantoms'
lesion_ontology.csv has the same columns: class (bodypart, type or attribute), term, synonyms, term_exclusive and
term_parents, lists joined by " | ".

What the published file leaves open is settled so:
* A parent's parent is a parent, whether it is listed or not.
* Exclusion goes both ways, even where only one of the two terms lists the other (lung and pleura, chest wall and
  pleura). Whatever is below one of two exclusive labels excludes whatever is below the other.
* No label excludes itself or its own ancestor; such pairs are dropped, since no lesion could have the label.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.files.cells import read_cells
from lensnb.files.workbook import read_sheet

KINDS = ("bodypart", "type", "attribute")
COLUMNS = ("class", "term", "synonyms", "term_exclusive", "term_parents")
FILES = ("lesion_ontology_181022.xlsx", "lesion_ontology.csv")  # the published one, the phantoms'
SEPARATOR = "|"


@dataclass(frozen=True)
class Ontology:
    """C labels and their relations; the matrices are bool (C, C).

    `parents[c, p]`: p is an ancestor of c, however far above. `exclusive` is symmetric. `listed_parents` and
    `listed_exclusive` hold what the file itself says.
    """

    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    parents: np.ndarray
    exclusive: np.ndarray
    listed_parents: np.ndarray
    listed_exclusive: np.ndarray

    def index(self, label: str) -> int:
        """Position of a label; ValueError if the ontology has no such label."""
        if label not in self.labels:
            raise ValueError(f"the ontology has no label {label!r}")
        return self.labels.index(label)

    def of_kind(self, kind: str) -> np.ndarray:
        """Which labels are of one of KINDS: bool (C,)."""
        return np.array(self.kinds) == kind


def find_ontology(folder: Path) -> Path:
    """The ontology file of a DeepLesion folder; FileNotFoundError if there is none."""
    for name in FILES:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{folder} has no ontology ({' or '.join(FILES)})")


def read_ontology(path: Path | str, labels: list[str] | None = None) -> Ontology:
    """Read a spreadsheet (.xlsx) or table (.csv) of terms, all of them or only `labels`, in that order.

    Names in term_parents and term_exclusive that are not among the labels are left out, as the published code does.
    Raises FileNotFoundError, and ValueError for a missing column, an unknown class, a term listed twice, a label
    that the file lacks, and parents in a circle.
    """
    path = Path(path)
    table = _read_terms(path)
    if labels is not None:
        missing = [label for label in labels if label not in set(table["term"])]
        if missing:
            raise ValueError(f"{path} has no term {', '.join(map(repr, missing))}")
        table = table.set_index("term", drop=False).loc[list(labels)]
    terms = tuple(table["term"])
    synonyms = tuple(
        tuple(dict.fromkeys([term, *_split(cell)])) for term, cell in zip(terms, table["synonyms"], strict=True)
    )
    listed_parents = _relation(terms, table["term_parents"])
    parents = closure(listed_parents)
    circular = [term for term, own in zip(terms, parents.diagonal(), strict=True) if own]
    if circular:
        raise ValueError(f"{path}: {', '.join(circular)} are their own ancestors; term_parents must not run in circles")
    listed_exclusive = _relation(terms, table["term_exclusive"])
    exclusive = without_ancestors(close_exclusive(listed_exclusive, parents), parents)
    return Ontology(terms, tuple(table["class"]), synonyms, parents, exclusive, listed_parents, listed_exclusive)


def unrelated(labels: tuple[str, ...]) -> Ontology:
    """An ontology that says nothing of its labels: for data that have label names alone, or no labels at all.

    No label has a parent, excludes another or has a synonym but its name; all count as of kind type.
    """
    nothing = np.zeros((len(labels), len(labels)), dtype=bool)
    return Ontology(
        labels=labels,
        kinds=("type",) * len(labels),
        synonyms=tuple((label,) for label in labels),
        parents=nothing,
        exclusive=nothing,
        listed_parents=nothing,
        listed_exclusive=nothing,
    )


def closure(parents: np.ndarray) -> np.ndarray:
    """All ancestors from some of them: (C, C) bool [child, parent], closed under parents of parents."""
    known = np.asarray(parents, dtype=bool)
    while True:
        more = known | (known.astype(np.int64) @ known > 0)
        if (more == known).all():
            return known
        known = more


def reduction(parents: np.ndarray) -> np.ndarray:
    """The parents that are no ancestor of another parent: the fewest pairs with the same closure."""
    known = closure(parents)
    return known & ~(known.astype(np.int64) @ known > 0)


def close_exclusive(listed: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Exclusion by the rule of LesaNet Sec. 3.1: labels at or below two exclusive ones are exclusive, both ways round.

    listed: (C, C) bool. parents: (C, C) bool, closed. May hold a label with itself or with its ancestor, if the
    listed pairs imply it; `without_ancestors` takes those out.
    """
    above = (parents | np.eye(len(parents), dtype=bool)).astype(np.int64)
    either = (listed | listed.T).astype(np.int64)
    return above @ either @ above.T > 0


def without_ancestors(exclusive: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Exclusive pairs less each label's pairs with itself and with its ancestors."""
    return exclusive & ~parents & ~parents.T & ~np.eye(len(parents), dtype=bool)


def expand(labels: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Add all ancestors of what is true (LesaNet Sec. 4.2): (n, C) bool and (C, C) closed parents to (n, C) bool."""
    labels = np.asarray(labels, dtype=bool)
    return labels | (labels.astype(np.int64) @ parents > 0)


def _read_terms(path: Path) -> pd.DataFrame:
    """The table of terms as text, one row a term; raises what `read_ontology` raises for a table's form."""
    advice = "it should hold the ontology of labels"
    if path.suffix.lower() == ".xlsx":
        table = read_sheet(path, COLUMNS, advice)
    else:
        table = read_cells(path, advice=advice)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; an ontology has {', '.join(COLUMNS)}")
    if table.empty:
        raise ValueError(f"{path} has no rows; an ontology has one for each term")
    for row, kind, term in zip(table.index, table["class"], table["term"], strict=True):
        if kind not in KINDS:
            raise ValueError(f"{path}, row {row}: class {kind!r} is none of {', '.join(KINDS)}")
        if not term:
            raise ValueError(f"{path}, row {row}: the term is empty")
    twice = table["term"][table["term"].duplicated()]
    if len(twice):
        raise ValueError(f"{path} lists {', '.join(map(repr, twice))} more than once")
    terms = set(table["term"])
    for column in ("term_parents", "term_exclusive"):
        for row, cell in table[column].items():
            parts = [part.strip() for part in re.split("[,;]", cell)]
            if len(parts) > 1 and cell not in terms and terms.issuperset(parts):
                raise ValueError(f"{path}, row {row}: {column} is {cell!r}; join terms by {SEPARATOR!r}")
    return table.reset_index(drop=True)


def _split(cell: str) -> list[str]:
    return [name.strip() for name in cell.split(SEPARATOR) if name.strip()]


def _relation(terms: tuple[str, ...], cells: pd.Series) -> np.ndarray:
    """What each row's cell names among the terms: bool (C, C), row and column in the order of `terms`."""
    number = {term: i for i, term in enumerate(terms)}
    matrix = np.zeros((len(terms), len(terms)), dtype=bool)
    for i, cell in enumerate(cells):
        matrix[i, [number[name] for name in _split(cell) if name in number]] = True
    return matrix
