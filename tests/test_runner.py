"""The runner asks Snakemake again while that helps, and never calls a run without its targets a success."""

from dataclasses import replace

import pytest

from lensnb import runner


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """An engine that makes the targets of these names, one tuple a call, and ends with `status`; counts its calls."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    targets = [runner.Target(name, name, tmp_path / name, "rule", False) for name in ("one", "two", "three")]

    def install(*rounds: tuple[str, ...], status: int = 0) -> list[runner.Target]:
        made = set()

        def call(command, runs, log) -> int:
            install.calls += 1
            log.write_text("")
            made.update(rounds[install.calls - 1])
            for name in made:
                (tmp_path / name).write_text("made")
            return status

        monkeypatch.setattr(runner, "_run_engine", call)
        monkeypatch.setattr(
            runner,
            "targets",
            lambda profile, seed: [replace(target, up_to_date=target.name in made) for target in targets],
        )
        return targets

    install.calls = 0
    return install


def test_a_plan_that_stops_early_is_continued(engine):
    chosen = engine(("one",), ("two", "three"))
    runner.run("smoke", None, chosen, 1)
    assert engine.calls == 2
    assert all(target.path.exists() for target in chosen)


def test_what_is_there_but_out_of_date_is_made_too(engine):
    chosen = engine(("one",), ("two", "three"))
    for target in chosen:
        target.path.write_text("old")
    runner.run("smoke", None, chosen, 1)
    assert [target.path.read_text() for target in chosen] == ["made"] * 3


def test_no_progress_is_a_failure(engine):
    with pytest.raises(runner.RunError, match="stopped before every target was made"):
        runner.run("smoke", None, engine(("one",), ()), 1)
    assert engine.calls == 2


def test_a_failed_engine_is_not_asked_again(engine):
    with pytest.raises(runner.RunError):
        runner.run("smoke", None, engine(("one",), ("two", "three"), status=1), 1)
    assert engine.calls == 1


def test_only_what_is_asked_for_counts(engine):
    chosen = engine(("two",))
    runner.run("smoke", ["two"], chosen[1:2], 1)
    assert engine.calls == 1
