"""Texts are true: every number in them that could be a result is on the list below, with the reason why it may stay.

What is read: the Markdown cells of all notebooks, the texts in their code cells that `say`, `show_table` and
`session.show` put on the page, as far as they are typed and not computed, and README.md. What counts as a number that
could be a result: percentages, points, thousands, "nine of ten", decimals of two places or more; in Markdown also
ordinals that point into a table or a picture ("the last row", "four panels") and "this run". A new one fails until it
is listed with its reason; one that is gone fails until it is taken from the list.

What this cannot see: a statement without a number ("mining helps most for nodes"). Such a sentence must be computed, or
asserted in the notebook's Check cell, or be a question; only reading finds it. For the texts beside pictures, which
readers who cannot see them must believe, the words that usually carry such a statement are listed, too. Sections "By
hand" are not read: their outputs are compared by nbval. README's "Where it stands" is written from the tables by
test_readme.py. Whether a listed reason is right is for the person who adds it.
"""

import ast
import json
import re
from pathlib import Path

import pytest

from lensnb.evaluation import published
from lensnb.settings import load_profile

HOUSE = Path(__file__).parents[1]
NOTEBOOKS = {path.stem[:2]: json.loads(path.read_text()) for path in sorted((HOUSE / "notebooks").glob("*.ipynb"))}
COUNT = r"(?:\d+|one|two|three|four|five|six|seven|eight|nine|ten)"
NUMBER = rf"""
    \d[\d.,]*\s?%(?!\ (?:bootstrap\ )?interval)
    | (?:\b\d[\d.]*|\b(?:a|half\ a|one|two|three|few))\ points?\b(?!\ in\ )
    | \b\d{{1,3}}(?:,\d{{3}})+\b | \b[\d.]+\ thousand\b
    | \b{COUNT}\ of\ {COUNT}\b(?!\ (?:mm|x)\ )
    | \b0\.\d{{2,}}(?!\ (?:mm|x)\b)
    """
POINTER = rf"""
    | \b(?:stored|committed|this)\ run\b
    | \b(?:first|second|third|last|(?!one\b|1\b){COUNT})\ (?:lines?|rows?|columns?|panels?|curves?)\b
    """
IN_CODE, IN_TEXT = (re.compile(pattern, re.VERBOSE | re.IGNORECASE) for pattern in (NUMBER, NUMBER + POINTER))
SHOWS = re.compile(
    r"\b(?:fall\w*|ris(?:e|es|ing)|higher|lower|further|most of|better|worse|rarely|usually|green in)\b", re.IGNORECASE
)

PAPER = "the paper's"  # a number of LENS, LesaNet or MULAN
DATA = "of the real datasets' files"
RULE = "a rule, in the code or the profile"
HAND = "arithmetic"
ORDER = "the code beside it makes the lines, columns or panels in this order"
ADVICE = "how large a difference must be before it is believed"
CHECK = "asserted in Check"

LOOKED_AT = {
    "00": {
        "from 36.8 % to 46.8 %": PAPER,
        "with mining reach 47.6 %": PAPER,
        "reduction brings 50.4 %": PAPER,
    },
    "01": {
        "1,000 sub-volumes of DeepLesion's test patients": PAPER,
        "its 1,000 completely marked": DATA,
        "4,155 lesions in the 800 test sub-volumes": PAPER,
        "200 and 800 sub-volumes, 5,447 lesions": DATA,
    },
    "02": {
        "the four ends of two lines": "what RECIST diameters are",
    },
    "03": {
        "backbone (6,170,240)": "compared with MULAN's published code in test_detector.py",
        "(55,599,114)": "compared with MULAN's published code in test_detector.py",
        "9/11 = 0.82": HAND,
        "no more than 1 % in the last few looks": RULE,
    },
    "04": {
        "one of three (the paper's 2:1)": RULE,
        "The first four panels": ORDER,
        "score of at least 0.01": RULE,
    },
    "05": {
        "at least 30 % of the detection": RULE,
        "at least 30 % of it lie": RULE,
        "37.3 % and 39.4 % for these two rows": PAPER,
    },
    "06": {
        "(`mining.cross_slice_precision`, nine of ten)": RULE,
        "from 22.8 thousand to 186 thousand": PAPER,
        "adds 0.9 points of average sensitivity (Table IV)": PAPER,
    },
    "07": {
        "(11.5 thousand to 22.8 thousand)": PAPER,
        "90 of 100 that were checked by hand": PAPER,
        "paper's $\\delta = 0.15$": PAPER,
        "(`mining.minimum_precision`, 19 of 20)": RULE,
        "The paper: 0.15, tuned": PAPER,
        "a line at 0.15": PAPER,
        "paper: 90 of 100 checked": PAPER,
    },
    "08": {
        "(47.6 against 44.9 % in its Table V)": PAPER,
        "at least 30 % of it lie": RULE,
    },
    "09": {
        "clear at 95 %": RULE,
        "+10.0 points for both": PAPER,
        "brings less than a point": RULE,
    },
    "10": {
        "The last two columns are known": ORDER,
        "What is left of them in the last row": ORDER,
        "How to read the three curves": ORDER,
        "The last column asks": ORDER,
    },
    "11": {
        "to at least 30 %": RULE,
        "The last rows exist only": ORDER,
        "a difference between two rows": RULE,
        "less than a point is gained": RULE,
        "from 80 to 90 % half": HAND,
        "from 50 to 60 % a fifth": HAND,
        "The last column compares": CHECK,
        "differences of one or two points": ADVICE,
        "this run cannot tell": "what undecided means",
        "less than 30 % of the box": RULE,
        "are half a point or less": CHECK,
        "a difference of two rows": ADVICE,
    },
    "12": {
        "reached a CPM of 0.898": PAPER,
        "80 % of the scans and mark the other 20 %": RULE,
        "down to a score of 0.01": RULE,
        "nine of ten are over 4.4 mm": DATA,
        "nine of ten are over {}": "computed",
        "a few points are within": ADVICE,
    },
    "14": {
        "137 and 4,461 pairs": PAPER,
        "1,493 of the training lesions": PAPER,
    },
    "16": {
        "without an entry in the last column": ORDER,
    },
    "17": {
        "a difference is that of its two rows": CHECK,
        "the paper's 0.15": PAPER,
        "a difference of a point or two": ADVICE,
    },
    "README": {
        "with 1,000 test sub-volumes of another seed": RULE,
        "(18 % of LUNA16's nodules are)": DATA,
        "at least 30 % of its volume": RULE,
        "loss of one point": RULE,
        "at which 90 % of the cross-slice boxes": RULE,
        "a distance under 0.15": PAPER,
        "at a precision of 95 %": RULE,
        "at which 60 % of its boxes": RULE,
        "0.898, on scans not named": PAPER,
        "the validation 20 % of the scans": RULE,
        "137 parents, 4,461 exclusive pairs": PAPER,
        "40 % of the labels lost": PAPER,
        "no more than 1 % in five looks": RULE,
    },
}
# what may be said beside a picture, since the code makes it so
DRAWN = {
    "Rising curves over the score": "maps of scores are rising by construction, tested in test_calibration.py",
    "numbered by falling score": "the table's order, asserted in Check",
    "falls short of the long axis by": "computed",
    "in grey further parents": "drawn so",
}


def typed(cell: dict) -> list[str]:
    """The texts of a code cell that `say`, `show_table` and `session.show` are given; {} for what is computed."""
    texts = []
    for call in (node for node in ast.walk(ast.parse("".join(cell["source"]))) if isinstance(node, ast.Call)):
        if getattr(call.func, "id", getattr(call.func, "attr", "")) in ("say", "show_table", "show"):
            given = [*call.args, *(word.value for word in call.keywords if word.arg in ("caption", "alt"))]
            texts += [text for one in given for text in _texts(one)]
    return texts


def _texts(node: ast.AST) -> list[str]:
    if isinstance(node, ast.JoinedStr):
        inner = [text for part in node.values if isinstance(part, ast.FormattedValue) for text in _texts(part.value)]
        return ["".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values), *inner]
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    return [text for child in ast.iter_child_nodes(node) for text in _texts(child)]


def without_checked(text: str) -> str:
    """A text without its sections "By hand" and "Where it stands", whose numbers other tests compare."""
    return re.sub(r"(?ms)^### (?:By hand|Where it stands).*?(?=^#|\Z)", "", text)


def numbers(place: str) -> list[tuple[str, int, int]]:
    """Where a text has a number that could be a result: (text, first, end), for a notebook or README."""
    if place == "README":
        texts = [(IN_TEXT, without_checked((HOUSE / "README.md").read_text()))]
    else:
        cells = NOTEBOOKS[place]["cells"]
        texts = [(IN_TEXT, without_checked("".join(c["source"]))) for c in cells if c["cell_type"] == "markdown"]
        texts += [(IN_CODE, text) for c in cells if c["cell_type"] == "code" for text in typed(c)]
    joined = [(pattern, " ".join(text.split())) for pattern, text in texts]
    return [(text, *found.span()) for pattern, text in joined for found in pattern.finditer(text)]


def covers(snippet: str, text: str, first: int, end: int) -> bool:
    """Whether a snippet stands in the text around a number."""
    return any(m.start() <= first and end <= m.end() for m in re.finditer(re.escape(snippet), text))


@pytest.mark.parametrize("place", [*NOTEBOOKS, "README"])
def test_every_number_has_been_looked_at(place):
    listed, found = LOOKED_AT.get(place, {}), numbers(place)
    new = [text[max(0, a - 50) : b + 50] for text, a, b in found if not any(covers(s, text, a, b) for s in listed)]
    assert new == [], "compute it, assert it in Check, or list it with its reason"
    gone = [snippet for snippet in listed if not any(covers(snippet, *one) for one in found)]
    assert gone == [], "no such number is in the text any more; take it from the list"


def test_the_list_stays_readable():
    assert sum(map(len, LOOKED_AT.values())) <= 80


def test_texts_beside_pictures_tell_what_is_drawn_and_not_what_was_found():
    cells = [cell for book in NOTEBOOKS.values() for cell in book["cells"] if cell["cell_type"] == "code"]
    texts = [text for cell in cells for text in typed(cell)]
    assert [text for text in texts if SHOWS.search(text) and not any(one in text for one in DRAWN)] == []
    assert [one for one in DRAWN if not any(one in text for text in texts)] == []


def test_what_the_search_finds_and_leaves():
    text = "93 % are real, a gain of +5.9 points; 1,378 of 1,397 boxes; nine of ten; 0.67; the last row of this run."
    assert [m.group().strip() for m in IN_TEXT.finditer(text)] == [
        "93 %", "5.9 points", "1,378", "1,397", "nine of ten", "0.67", "last row", "this run",
    ]  # fmt: skip
    left = "a 95 % interval, 2.5 mm, row (g), Fig. 3, 1.6 x 1.6 x 4 mm, one of them, of 30 mm or more, 256 numbers"
    assert IN_TEXT.findall(left) == []
    cell = {"source": ["say(f'{x:.0%} hold, 7 % do not')\n", "session.show(fig, caption='5 % of ' + name)\n", "'3 %'"]}
    assert typed(cell) == ["{} hold, 7 % do not", "5 % of "]
    assert without_checked("a\n### By hand\n0.67\n## Next\nb") == "a\n## Next\nb"


def test_the_papers_numbers_are_those_of_its_tables():
    rows, four = published.AVERAGES, published.TABLE4.set_index("method").average
    said = {
        "00": [f"from {100 * rows['a']:.1f} % to {100 * rows['e']:.1f} %", f"reach {100 * rows['g']:.1f} %",
               f"brings {100 * rows['h']:.1f} %"],
        "05": [f"{100 * rows['b']:.1f} % and {100 * rows['c']:.1f} % for these two rows"],
        "06": [f"adds {100 * (four['+ Cross-slice'] - four['No mining']):.1f} points"],
        "09": [f"{100 * (rows['e'] - rows['a']):+.1f} points for both", f"{100 * (rows['f'] - rows['b']):+.1f} points"],
        "08": [f"({100 * rows['g']:.1f} against 44.9 %"],
        "12": [f"a CPM of {published.LUNA16_CPM}"],
    }  # fmt: skip
    for place, snippets in said.items():
        texts = {text for text, *_ in numbers(place)}
        assert [snippet for snippet in snippets if not any(snippet in text for text in texts)] == []


def test_readme_describes_the_benchmark_that_the_profile_makes():
    p = load_profile("phantom")
    x, y, z = p.grid.spacing_mm
    said = [
        f"{x:g} x {y:g} x {z:g} mm voxels",
        f"no lesion is shorter than {p.phantom.smallest_mm} mm, three voxels of the grid",
        f"A cell of the features is {p.network.stride * x:g} mm wide, as in the paper",
        f"{p.training.crop[0]} x {p.training.crop[1]} pixels, {p.training.crop[0] * x:.0f} mm",
        f"slices of {p.phantom.pretext_patients} phantom people without a lesion",
        f"the loss on {p.phantom.pretext_val_patients} others has fallen by no more than 1 % in five looks",
        f"the best of five looks at {p.training.validation_volumes} validation sub-volumes",
        f"the lowest at which {p.mining.uncertain_precision:.0%} of its boxes".replace("%", " %"),
        f"the lowest at which {p.mining.cross_slice_precision:.0%} of the cross-slice boxes".replace("%", " %"),
        f"at a precision of {p.mining.minimum_precision:.0%}".replace("%", " %"),
    ]
    assert p.training.validations == p.pretext.patience == 5 and 3 * x == pytest.approx(p.phantom.smallest_mm)
    readme = " ".join((HOUSE / "README.md").read_text().split())
    assert [sentence for sentence in said if sentence not in readme] == []
