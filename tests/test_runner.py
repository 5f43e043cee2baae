"""The runner asks Snakemake for what is out of date, and never calls a run without its targets a success."""

from dataclasses import replace

import pytest

from lensnb.run import engine
from lensnb.run.targets import Product, RunError


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    """An engine that makes the targets of these names and ends with `status`; keeps what it was asked for."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    found = [Product(name, tmp_path / name, f"step-{name}", "not made yet") for name in ("one", "two", "three")]

    def install(*made: str, status: int = 0) -> list[Product]:
        done = set()

        def call(command, runs, log) -> int:
            install.commands.append(command)
            log.write_text("")
            done.update(made)
            return status

        def targets(profile, seed):
            return [replace(target, reason="" if target.name in done else target.reason) for target in found]

        monkeypatch.setattr(engine, "_run_engine", call)
        monkeypatch.setattr(engine, "targets", targets)
        monkeypatch.setattr(engine, "mark", lambda profile, seed, waiting: install.marked.append(set(waiting)))
        return found

    install.commands, install.marked = [], []
    return install


def test_the_steps_that_are_out_of_date_are_run(snakemake):
    chosen = snakemake("one", "two", "three")
    engine.run("smoke", None, chosen, 1)
    assert snakemake.marked == [{"step-one", "step-two", "step-three"}]
    assert snakemake.commands[0][-3:] == ["done/step-one", "done/step-two", "done/step-three"]


def test_a_run_without_its_targets_is_a_failure_that_says_why(snakemake):
    with pytest.raises(RunError, match="stopped before every target was made"):
        engine.run("smoke", None, snakemake("one"), 1)


def test_what_was_changed_meanwhile_is_said(snakemake):
    chosen = snakemake("one", "three")
    for target in chosen:
        target.path.write_text("made")
    with pytest.raises(RunError, match="1 targets are out of date again, two because not made yet; the same command"):
        engine.run("smoke", None, chosen, 1)


def test_a_failed_engine_is_not_asked_again(snakemake):
    with pytest.raises(RunError):
        engine.run("smoke", None, snakemake("one", "two", "three", status=1), 1)
    assert len(snakemake.commands) == 1


def test_only_what_is_asked_for_counts(snakemake):
    chosen = snakemake("two")
    engine.run("smoke", ["two"], chosen[1:2], 1)
    assert len(snakemake.commands) == 1
