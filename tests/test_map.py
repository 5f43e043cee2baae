"""lensnb/README.md, the map of the package: what it names is there, and the drawing is the house."""

import ast
import re
from pathlib import Path

import pytest
from test_architecture import FLOORS

from lensnb.run import story

PACKAGE = Path(__file__).resolve().parents[1] / "lensnb"
PAGES = {
    path: path.read_text() for path in (PACKAGE / "README.md", PACKAGE.parent / "notebooks" / "change_one_thing.md")
}
MAP = PAGES[PACKAGE / "README.md"]
PLACE = re.compile(r"`([\w/]+\.(?:py|yml))(?::([\w.]+))?`")
LINK = re.compile(r"\[[^\]]*\]\(([^)]+)\)")
REFERENCE = re.compile(
    r"(Eq|Sec|Fig|Table)s?\.? ((?:[IVX]+(?:-[A-E])?|\d+(?:\.\d+)*)\b(?:(?:,| and| to) [\dIVX][\w.-]*\b)*)"
)
ROWS = re.findall(
    r"^\| ((?:LENS|LesaNet) (?:Eq\.|Sec\.|Fig\.|Table) \S+) \| (.+?) \| (.+) \|$", MAP, flags=re.MULTILINE
)
PAPERS = {
    "LENS": {
        "Eq.": "1 2 3 4",
        "Sec.": "IV-A IV-B IV-C IV-D V-A V-B V-C VI-A VI-B VI-C VI-D VI-E",
        "Fig.": "1 2 3 4 5 6 7",
        "Table": "I II III IV V",
    },
    "LesaNet": {
        "Eq.": "1 2 3 4 5",
        "Sec.": "3.1 3.2 4.1 4.2 4.3 4.4 5.1 5.2 5.3 5.4 5.5 7.1 7.2.2 7.3",
        "Fig.": "1 2 3 4 5 6 7 8 9 10",
        "Table": "1 2 3",
    },
}
UNTAGGED = {"LesaNet Sec. 5.5", "LesaNet Sec. 7.1"}  # the code says what it does there, but not by this number


def names_in(file: Path) -> set[str]:
    """Functions, classes and constants of a file, methods and fields as Class.name."""
    found = set()

    def visit(nodes: list, prefix: str) -> None:
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    found.update(prefix + part.id for part in ast.walk(target) if isinstance(part, ast.Name))

    visit(ast.parse(file.read_text()).body, "")
    return found


def references(text: str) -> set[tuple[str, str]]:
    """(kind, number) of every equation, section, figure and table in a text; "Sec. 4.1, 4.3 and Fig. 3" has three."""
    found = set()
    for kind, numbers in REFERENCE.findall(text):
        found |= {(kind, number) for number in re.findall(r"[IVX]+(?:-[A-E])?|\d+(?:\.\d+)*", numbers)}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_named_file_and_function_exists(page):
    wrong = []
    made_there = re.findall(r"^```python file=(\S+)$", PAGES[page], flags=re.MULTILINE)
    for name, function in PLACE.findall(PAGES[page]):
        file = PACKAGE / name
        if name not in made_there and not (file.exists() or (PACKAGE.parent / name).exists()):
            wrong.append(name)
        elif function and function not in names_in(file):
            wrong.append(f"{name}:{function}")
    assert wrong == []


def anchors(text: str) -> set[str]:
    """The anchors of a page's titles as GitHub makes them: "## I want to find ..." would be "i-want-to-find-"."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.+?) *$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_anchors_are_those_of_github():
    text = "# A `b.py`, and more\n```\n# no title\n```\n## I want to find ...\n"
    assert anchors(text) == {"a-bpy-and-more", "i-want-to-find-"}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    wrong = []
    for link in LINK.findall(PAGES[page]):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if link.startswith("http"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            wrong.append(link)
    assert wrong == []


def test_every_section_of_the_map_is_in_its_contents():
    contents = re.findall(r"^\* \[[^\]]*\]\(#([^)]+)\)$", MAP, flags=re.MULTILINE)
    assert set(contents) == anchors("\n".join(re.findall(r"^## .+$", MAP, flags=re.MULTILINE)))


def test_the_steps_that_read_a_section():
    """The table of what a changed number makes again is what the story says."""
    wanted = {}
    for step in story.steps("phantom"):
        for section in step.reads:
            wanted.setdefault(section, set()).add(step.name[:2] if step.name[0].isdigit() else f"`{step.name}`")
    table = re.search(r"^\| section \|.*?\n\n", MAP, flags=re.MULTILINE | re.DOTALL)[0]
    found = {
        name: set(steps.split(", ")) for name, steps in re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE)
    }
    del wanted["name"]  # of notebook 00, which shows it
    assert found == wanted


def test_the_drawing_is_the_house():
    drawing = re.search(r"^```text\n(.*?)^```$", MAP, flags=re.MULTILINE | re.DOTALL)[1]
    lines = [line for line in drawing.splitlines() if line.strip() != "|"]
    floors = [tuple(re.split(r" {3}(?=\S)", re.split(r" {4,}", line)[0])) for line in lines]
    assert floors == list(FLOORS)


def test_every_room_has_its_line():
    table = re.search(r"^\| room \| owns.*?\n\n", MAP, flags=re.MULTILINE | re.DOTALL)[0]
    rooms = {room.removesuffix(".py").removesuffix("/") for room in re.findall(r"^\| `([\w/.]+)`", table, re.MULTILINE)}
    assert rooms | {"table of datasets"} == {room for floor in FLOORS for room in floor}
    assert "| table of datasets: " in table


def test_every_equation_section_figure_and_table_has_its_row():
    wanted = [f"{paper} {kind} {n}" for paper, kinds in PAPERS.items() for kind in kinds for n in kinds[kind].split()]
    assert [tag for tag, _, _ in ROWS] == wanted


@pytest.mark.parametrize(("tag", "where"), [(tag, where) for tag, _, where in ROWS])
def test_the_code_names_what_it_computes(tag, where):
    """A file of the row says its tag: equations of LENS with the paper's name, the others at least by their number."""
    if where.startswith("missing") or tag in UNTAGGED:
        return
    files = [PACKAGE / name for name, _ in PLACE.findall(where)]
    files += [PACKAGE / link for link in LINK.findall(where)]
    texts = [file.read_text() for file in files if file.exists()]
    paper, kind, number = tag.split(" ", 2)
    if (paper, kind) == ("LENS", "Eq."):
        assert any(tag in text for text in texts), f"none of {where} contains {tag}"
    assert any((kind.rstrip("."), number) in references(text) for text in texts), f"none of {where} speaks of {tag}"
