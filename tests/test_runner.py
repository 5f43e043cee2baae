"""The runner asks Snakemake again while that helps, and never calls a run without its targets a success."""

from dataclasses import replace

import pytest

from lensnb.run import engine
from lensnb.run.targets import Product, RunError


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    """An engine that makes the targets of these names, one tuple a call, and ends with `status`; counts its calls."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    targets = [Product(name, name, tmp_path / name, "rule", False) for name in ("one", "two", "three")]

    def install(*rounds: tuple[str, ...], status: int = 0) -> list[Product]:
        made = set()

        def call(command, runs, log) -> int:
            install.calls += 1
            log.write_text("")
            made.update(rounds[install.calls - 1])
            for name in made:
                (tmp_path / name).write_text("made")
            return status

        monkeypatch.setattr(engine, "_run_engine", call)
        monkeypatch.setattr(
            engine,
            "targets",
            lambda profile, seed: [replace(target, up_to_date=target.name in made) for target in targets],
        )
        return targets

    install.calls = 0
    return install


def test_a_plan_that_stops_early_is_continued(snakemake):
    chosen = snakemake(("one",), ("two", "three"))
    engine.run("smoke", None, chosen, 1)
    assert snakemake.calls == 2
    assert all(target.path.exists() for target in chosen)


def test_what_is_there_but_out_of_date_is_made_too(snakemake):
    chosen = snakemake(("one",), ("two", "three"))
    for target in chosen:
        target.path.write_text("old")
    engine.run("smoke", None, chosen, 1)
    assert [target.path.read_text() for target in chosen] == ["made"] * 3


def test_no_progress_is_a_failure(snakemake):
    with pytest.raises(RunError, match="stopped before every target was made"):
        engine.run("smoke", None, snakemake(("one",), ()), 1)
    assert snakemake.calls == 2


def test_a_failed_engine_is_not_asked_again(snakemake):
    with pytest.raises(RunError):
        engine.run("smoke", None, snakemake(("one",), ("two", "three"), status=1), 1)
    assert snakemake.calls == 1


def test_only_what_is_asked_for_counts(snakemake):
    chosen = snakemake(("two",))
    engine.run("smoke", ["two"], chosen[1:2], 1)
    assert snakemake.calls == 1
