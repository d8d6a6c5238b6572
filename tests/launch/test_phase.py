"""A phase of a run: what it saves, what it refuses, how it stops."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import types
import weakref

import pytest

from configs.presets import PRESETS
from gtpo_jax.learner.checkpoint import saved_steps
from gtpo_jax.results import metrics
from launch import cli
from launch.run import phase, signals, versions
from tests.learner.test_checkpoint import blank, cut, make_state

CONFIG = PRESETS["tiny"]


@pytest.fixture(autouse=True)
def restored_signals(interruptible):
    """Restores the signal handlers that a test changes."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def open_phase(run_dir, *, resume=False, every=100, config=CONFIG):
    return phase.Phase(
        "train",
        run_dir,
        config,
        blank(make_state()) if resume else make_state(),
        resume=resume,
        checkpoint_every=every,
        go_on="python -m launch.train --resume",
    )


def work(opened, total, *, at=None, do=None):
    """Steps that only write their metrics; `do` is called in step `at`."""
    with opened:
        for step in opened.steps(total):
            opened.metrics.write(step + 1, {"loss": step})
            if step == at:
                do()


def steps_told(run_dir):
    return [record["step"] for record in metrics.read_metrics(run_dir / "train/metrics.jsonl")]


def terminate(times=1):
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGTERM)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("tell", "raised"), [(terminate, signals.Preempted), (interrupt, KeyboardInterrupt)]
)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_told_to_stop_the_step_ends_and_is_saved(tmp_path, tell, raised, at):
    again = rf"saved step {at + 1}; go on with `python -m launch.train --resume`$"
    with pytest.raises(raised, match=again):
        work(open_phase(tmp_path), 5, at=at, do=tell)
    assert steps_told(tmp_path) == list(range(1, at + 2))
    assert saved_steps(tmp_path / "train" / "checkpoints") == {at + 1: None}


def test_sigterm_never_interrupts_a_save(tmp_path, monkeypatch):
    opened = open_phase(tmp_path)
    save, wait = opened.store.save, opened.store.wait
    monkeypatch.setattr(opened.store, "save", lambda *a: (terminate(3), save(*a), terminate(3)))
    monkeypatch.setattr(opened.store, "wait", lambda: (terminate(3), wait(), terminate(3)))
    with pytest.raises(signals.Preempted, match="saved step 2"):
        work(opened, 5, at=1, do=terminate)
    terminate()  # nor what is left to do afterwards
    assert saved_steps(tmp_path / "train" / "checkpoints") == {2: None}


def test_second_interrupt_is_heard_at_once(tmp_path):
    def twice():
        interrupt()
        interrupt()
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt) as stop:
        work(open_phase(tmp_path), 5, at=1, do=twice)
    assert not stop.value.args
    assert saved_steps(tmp_path / "train" / "checkpoints") == {}


def test_ignored_interrupt_stays_ignored_and_is_told_once(tmp_path, capsys):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signals.tell_who_is_heard.cache_clear()
    for name in ("one", "two"):
        work(open_phase(tmp_path / name), 3, at=1, do=lambda: (interrupt(), interrupt()))
        assert steps_told(tmp_path / name) == [1, 2, 3]
    told = f"Ctrl-C is ignored, as in the background; `kill {os.getpid()}` saves and stops\n"
    assert capsys.readouterr().out.count(told) == 1
    with pytest.raises(signals.Preempted, match="saved step 1"):
        work(open_phase(tmp_path / "three"), 3, at=0, do=terminate)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_sigterm_while_the_last_save_is_awaited_is_not_lost(tmp_path, monkeypatch):
    opened = open_phase(tmp_path)
    wait = opened.store.wait
    monkeypatch.setattr(opened.store, "wait", lambda: (terminate(), wait()))
    with signals.heard(), pytest.raises(signals.Preempted):
        work(opened, 2)
    assert saved_steps(tmp_path / "train" / "checkpoints") == {2: None}


def test_sigterm_in_a_callback_of_the_interpreter_is_not_lost():
    class Thing:
        pass

    def callback(_):
        signal.raise_signal(signal.SIGTERM)
        for _ in range(1000):  # the handler runs in here, and what it raises is swallowed
            pass

    with pytest.raises(signals.Preempted), signals.heard():
        thing = Thing()
        reference = weakref.ref(thing, callback)
        del thing
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.01)
    assert reference() is None


def test_one_process_that_is_told_stops_all(tmp_path, monkeypatch):
    """A signal to another process arrives with the exchange at the end of a step."""
    others = iter([None, signal.SIGINT])
    exchange = types.SimpleNamespace(gather_objects=lambda mine: [mine, next(others)])
    monkeypatch.setattr(signals, "processes", exchange)
    with pytest.raises(KeyboardInterrupt, match="saved step 2"):
        work(open_phase(tmp_path), 5)
    exchange.gather_objects = lambda mine: [signal.SIGINT, signal.SIGTERM, mine]
    with pytest.raises(signals.Preempted, match="saved step 3"):
        work(open_phase(tmp_path, resume=True), 5)


def run_main(monkeypatch, capsys, run) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["launch"])
    with pytest.raises(SystemExit) as stop:
        cli.main(run)
    return stop.value.code, capsys.readouterr().err


def test_sigterm_outside_of_steps_ends_at_once(monkeypatch, capsys):
    status, printed = run_main(monkeypatch, capsys, lambda _: terminate())
    assert status == cli.EXIT_PREEMPTED
    assert printed == "stopped by SIGTERM; nothing was saved yet; run the same command again\n"


def test_sigterm_between_phases_names_what_goes_on(tmp_path, monkeypatch, capsys):
    def run(_):
        work(open_phase(tmp_path), 2)
        terminate()

    status, printed = run_main(monkeypatch, capsys, run)
    assert status == cli.EXIT_PREEMPTED
    assert printed == ("stopped by SIGTERM; go on with `python -m launch.train --resume`\n")


@pytest.mark.parametrize("tell", [terminate, interrupt])
def test_stop_in_a_step_is_one_line(tmp_path, monkeypatch, capsys, tell):
    def run(_):
        work(open_phase(tmp_path), 5, at=1, do=tell)

    status, printed = run_main(monkeypatch, capsys, run)
    assert status == {terminate: cli.EXIT_PREEMPTED, interrupt: cli.EXIT_INTERRUPTED}[tell]
    assert "saved step 2; go on with `python -m launch.train --resume`" in printed
    assert printed.count("\n") == 1


def test_disk_without_room_is_one_line(tmp_path, monkeypatch, capsys):
    def run(_):
        raise OSError(28, "No space left on device", "metrics.jsonl")

    assert run_main(monkeypatch, capsys, run) == (
        cli.EXIT_FAILED,
        "error: metrics.jsonl: No space left on device\n",
    )


def test_damaged_newest_checkpoint_is_replaced_by_the_one_before(tmp_path):
    work(open_phase(tmp_path, every=2), 6)
    checkpoints = tmp_path / "train" / "checkpoints"
    assert saved_steps(checkpoints) == {6: None, 4: None}
    cut(next((checkpoints / "6" / "state" / "d").iterdir()))
    opened = open_phase(tmp_path, resume=True, every=2)
    assert opened.start == 4
    assert steps_told(tmp_path) == [1, 2, 3, 4], "what will be done again is dropped"
    work(opened, 6)
    assert steps_told(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert saved_steps(checkpoints) == {6: None, 4: None}


@pytest.mark.parametrize("resume", [False, True])
def test_phase_with_nothing_but_damaged_checkpoints_is_left_as_it_is(tmp_path, resume):
    work(open_phase(tmp_path), 2)
    [data] = (tmp_path / "train" / "checkpoints" / "2" / "state" / "d").iterdir()
    cut(data)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="no whole checkpoint .*step 2" if resume else "--resume"):
        open_phase(tmp_path, resume=resume)
    for path, changed in kept.items():
        assert path.stat().st_mtime_ns == changed, path


def test_versions_are_kept_with_the_step_they_begin_at(tmp_path):
    work(open_phase(tmp_path), 2)
    work(open_phase(tmp_path, resume=True), 3)
    first, second = json.loads((tmp_path / "train" / "versions.json").read_text())
    assert (first.pop("step"), second.pop("step")) == (0, 2)
    assert first == second
    assert first["jax"] and first["python"] == sys.version.split()[0]
    assert (first["platform"], first["devices"], first["processes"]) == ("cpu", 8, 1)
    commit = versions.commit()
    assert first["commit"] == commit
    assert commit is None or len(commit.removesuffix("-dirty")) == 40


def test_resume_and_resume_if_any_exclude_each_other(monkeypatch, capsys):
    def run(_):
        cli.parse(cli.PhaseArguments, ["tiny", "--resume", "--resume-if-any"], program="tests")

    status, printed = run_main(monkeypatch, capsys, run)
    assert status == cli.EXIT_BAD_INPUT
    assert "--resume-if-any begins without one; give one" in printed


def test_resume_if_any_says_what_it_does(tmp_path, capsys):
    def resumes(*options):
        options = ["tiny", "--run-dir", str(tmp_path), *options]
        return cli.parse(cli.PhaseArguments, options, program="tests").resumes("train")

    assert not resumes() and resumes("--resume")
    assert not resumes("--resume-if-any")
    assert "train begins: no checkpoint in" in capsys.readouterr().out
    work(open_phase(tmp_path), 2)
    assert resumes("--resume-if-any") and not resumes()
    work(open_phase(tmp_path, resume=True), 3)
    assert "train goes on from step 2" in capsys.readouterr().out
