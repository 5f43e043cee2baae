"""The runner asks Snakemake again while that helps, and never calls a run without its targets a success."""

import pytest

from lensnb import runner


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    return [runner.Target(name, name, tmp_path / name, "rule", False) for name in ("one", "two", "three")]


def engine_that_makes(chosen, *rounds):
    """An engine that makes the targets of these names, one tuple a call, and ends in success."""
    calls = iter(rounds)

    def engine(command, runs, log):
        names = next(calls)
        log.write_text("")
        for target in chosen:
            if target.name in names:
                target.path.write_text("made")
        return 0

    return engine


def test_a_plan_that_stops_early_is_continued(chosen, monkeypatch):
    monkeypatch.setattr(runner, "_run_engine", engine_that_makes(chosen, ("one",), ("two", "three")))
    runner.run("smoke", chosen, 1)
    assert all(target.path.exists() for target in chosen)


def test_no_progress_is_a_failure(chosen, monkeypatch):
    monkeypatch.setattr(runner, "_run_engine", engine_that_makes(chosen, ("one",), ()))
    with pytest.raises(runner.RunError, match="stopped before every target was made"):
        runner.run("smoke", chosen, 1)


def test_a_failed_engine_is_not_asked_again(chosen, monkeypatch):
    calls = []

    def fails(command, runs, log):
        calls.append(1)
        log.write_text("")
        return 1

    monkeypatch.setattr(runner, "_run_engine", fails)
    with pytest.raises(runner.RunError):
        runner.run("smoke", chosen, 1)
    assert len(calls) == 1
