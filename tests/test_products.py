"""Slow products say what they were made from, and are made again when that differs or they are not whole."""

import json
import os

import pytest

from lensnb.provenance import inventory, product, recipe

RECIPE = {"lensnb/models/afp.py": "a1", "library torch": "2.11.0", "seed": "s"}


@pytest.fixture
def files(tmp_path):
    found = [tmp_path / name for name in ("weights.safetensors", "config.json", "log.csv")]
    for path in found:
        path.write_text(path.name)
    product.write_record(found, RECIPE)
    return found


def test_a_whole_product_of_the_same_recipe_is_made(files, capsys):
    assert product.is_made(files, dict(reversed(RECIPE.items())))
    for path in files:
        os.utime(path, (1, 1))
    assert product.is_made(files, RECIPE) and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files[0].write_text("weightz.safetensors"), "weights.safetensors is not as it was written"),
        (lambda files: files[2].write_text(""), "log.csv is not as it was written"),
        (lambda files: files[1].unlink(), "config.json is missing"),
        (lambda files: product.record_of(files[0]).unlink(), "nothing says what it was made from"),
        (lambda files: product.record_of(files[0]).write_text("{"), "nothing says what it was made from"),
        (lambda files: product.record_of(files[0]).write_text("{}"), "nothing says what it was made from"),
    ],
)
def test_what_is_not_whole_is_made_again_and_named(files, capsys, change, message):
    change(files)
    assert not product.is_made(files, RECIPE)
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (RECIPE | {"lensnb/models/afp.py": "a2"}, "lensnb/models/afp.py changed"),
        (RECIPE | {"library torch": "2.12.0"}, "torch is 2.12.0, it was 2.11.0"),
        (RECIPE | {"labels": "l"}, "labels is new"),
        ({"seed": "s"}, "lensnb/models/afp.py is gone; library torch is gone"),
    ],
)
def test_another_recipe_is_named(files, capsys, other, message):
    assert not product.is_made(files, other)
    assert message in capsys.readouterr().out


def test_a_product_that_was_never_made_needs_no_explanation(tmp_path, capsys):
    assert not product.is_made([tmp_path / "x.npz"], RECIPE)
    assert capsys.readouterr().out == ""


def test_files_of_a_product_are_known_by_its_record(files, tmp_path):
    (tmp_path / "figure.png").touch()
    assert all(product.is_product(path) for path in files)
    assert not product.is_product(tmp_path / "figure.png")
    product.record_of(files[0]).write_text("no json")
    assert not product.is_product(files[0])


def test_a_folder_is_compared_with_its_inventory(tmp_path):
    for name in ("a/one", "a/two", "b/three", "ours"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    known = json.loads(json.dumps(inventory.take(tmp_path, ["ours"])))
    assert set(known) == {"a/one", "a/two", "b/three"}
    os.utime(tmp_path / "a" / "one", (1, 1))  # another time, the same bytes
    assert inventory.faults(tmp_path, known, ["ours"]) == []
    (tmp_path / "a" / "one").write_text("a/onf")
    (tmp_path / "a" / "two").unlink()
    (tmp_path / "b" / "four").touch()
    assert inventory.faults(tmp_path, known, ["ours"]) == [
        "a/one is not as it was written", "a/two is missing", "b/four was added"
    ]  # fmt: skip


def test_code_is_followed_through_imports_of_every_kind(tmp_path, monkeypatch):
    package = tmp_path / "lensnb"
    files = {
        "__init__.py": "",
        "one.py": "import lensnb.two\nimport numpy\n\ndef f():\n    from lensnb.room import three\n    import torch\n",
        "two.py": "X = 1\n",
        "unused.py": "Y = 1\n",
        "room/__init__.py": "READERS = {'kind': 'four'}\n",
        "room/three.py": "from importlib import import_module\nimport_module(f'lensnb.room.{name}')\n",
        "room/four.py": "import psutil\n",
        "room/five.py": "",
        "room/words.csv": "a,b\n",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(exist_ok=True, parents=True)
        (package / name).write_text(text)
    monkeypatch.setattr(recipe, "PACKAGE", package)
    found = recipe.code(["lensnb.one"])
    modules = {name for name in found if name.startswith("lensnb/")}
    assert modules == {
        f"lensnb/{name}"
        for name in ("__init__.py", "one.py", "two.py", "room/__init__.py", "room/three.py", "room/four.py",
                     "room/words.csv")
    }  # fmt: skip
    assert {name for name in found if name.startswith("library")} == {"library numpy", "library torch"}
    (package / "one.py").write_text('"""Words."""\n' + files["one.py"].replace("def f():", "def f():\n    # a comment"))
    assert recipe.code(["lensnb.one"]) == found
    (package / "two.py").write_text("X = 2\n")
    assert recipe.differences(found, recipe.code(["lensnb.one"])) == ["lensnb/two.py changed"]
    with pytest.raises(ValueError, match=r"there is no module lensnb\.none"):
        recipe.code(["lensnb.none"])
    (package / "two.py").write_text("X = \n")
    with pytest.raises(SyntaxError, match=r"lensnb\.two, line 1"):
        recipe.code(["lensnb.one"])


def test_lines_of_ipython_are_code_too():
    cells = "import pandas\nif True:\n    %time x = 1\n!ls\n"
    assert recipe.imports_of(cells, "n.ipynb") == (set(), {"pandas"})
    found = {recipe.code_of(one, "n.ipynb") for one in (cells, cells.replace("ls", "pwd"), f"# words\n{cells}")}
    assert len(found) == 2
