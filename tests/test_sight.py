"""A step that reads what it does not declare fails and says what it was."""

import os
import subprocess
import sys

import pytest

from lensnb.provenance import sight
from lensnb.system import repository


@pytest.fixture
def look(tmp_path):
    """Run some code that sees `mine` of the files in a run folder; what it prints and its last line of errors."""
    run = tmp_path / "run"
    for name in ("mine", "other", "other.made", "store/volume", ".x.part.npz"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    (tmp_path / "raw").write_text("raw")
    sight.write_list(tmp_path / "list.json", "09_some", [run], [run / "mine"], [run / "store"])

    def call(code: str) -> tuple[str, str]:
        code = f"import os, pathlib\nfrom lensnb.provenance import sight\nsight.limit()\n{code}"
        environment = {**os.environ, "PYTHONPATH": str(repository()), sight.VARIABLE: str(tmp_path / "list.json")}
        ran = subprocess.run([sys.executable, "-c", code], cwd=run, env=environment, capture_output=True, text=True)
        return ran.stdout, (ran.stderr.splitlines() or [""])[-1]

    return call


@pytest.mark.parametrize("name", ["mine", "other.made", "store/volume", ".x.part.npz", "../raw"])
def test_what_is_declared_or_not_of_the_run_is_read(look, name):
    assert look(f"print(open({name!r}).read())") == (f"{name.removeprefix('../')}\n", "")


@pytest.mark.parametrize(
    "code",
    ["open('other')", "pathlib.Path('other').read_text()", "import pandas; pandas.read_csv('other')",
     "import numpy; numpy.load(os.path.abspath('other'))", "os.open('other', os.O_RDONLY)"],
)  # fmt: skip
def test_what_is_not_declared_is_refused(look, code):
    output, error = look(code)
    assert (
        output == "" and "Undeclared: 09_some reads " in error and "run/other, which is not among its inputs" in error
    )


def test_writing_is_free(look):
    assert look("open('new', 'w').write('x'); print(os.listdir('.').count('new'))") == ("1\n", "")


def test_without_a_list_everything_is_read(tmp_path, monkeypatch):
    monkeypatch.delenv(sight.VARIABLE, raising=False)
    (tmp_path / "file").touch()
    sight.limit()
    assert (tmp_path / "file").read_text() == ""
