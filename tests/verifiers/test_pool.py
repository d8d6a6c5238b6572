"""Workers that judge: limits held from outside, crashes, and that nothing stays behind."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from gtpo_jax.tasks.generated import GeneratedTask
from gtpo_jax.types import Problem, Verdict
from gtpo_jax.verifiers import KindVerifier, WorkerPool
from tests.tools.calls import ROOT, alive, gone_within, linux_only

pytest.importorskip("math_verify", reason="needs the extra `tasks`")
pytestmark = linux_only  # where the processes are looked up in /proc

HOSTILE = "tests.verifiers.hostile_judge"
HANGING = "hang"
FIVE = Problem(id="p", question="q", answer="5")


def workers(pool):
    return [worker.process.pid for worker in pool._running]


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to this"
        time.sleep(0.01)


def record(given, expected="5"):
    return {"expected": expected, "given": given, "tolerance": 1e-6}


def hostile(seconds=60.0, **options):
    return WorkerPool("math", module=HOSTILE, workers=1, seconds=seconds, **options)


@pytest.mark.slow
def test_answer_that_hangs_is_wrong_and_holds_up_nobody():
    pool = hostile(seconds=1.0)
    try:
        pool.start()
        [before] = workers(pool)
        begun = time.monotonic()
        verdicts = [pool.submit(record(given)) for given in ("5", HANGING, "6", "5")]
        assert verdicts[0].result(timeout=60) is Verdict.RIGHT and not verdicts[1].done()
        assert [verdict.result(timeout=60) for verdict in verdicts] == [
            Verdict.RIGHT,
            Verdict.WRONG,
            Verdict.WRONG,
            Verdict.RIGHT,
        ]
        assert time.monotonic() - begun >= 2.0  # it had two attempts
        assert not alive(before)
        assert (pool.timeouts, pool.crashes) == (1, 0)
    finally:
        pool.close()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["hang", "exit", "memory", "raise"])
def test_who_ends_a_worker_bears_it(end):
    # What the policy answers is its own, the expected answer is not.
    pool = hostile(seconds=1.0)
    try:
        given, expected = pool.submit(record(end)), pool.submit(record("5", expected=end))
        assert given.result(timeout=60) is Verdict.WRONG
        assert expected.result(timeout=60) is Verdict.UNVERIFIABLE
        assert pool.submit(record("5")).result(timeout=60) is Verdict.RIGHT
        counts = {"hang": (2, 0), "exit": (0, 2), "memory": (0, 2), "raise": (0, 0)}
        assert (pool.timeouts, pool.crashes) == counts[end]
    finally:
        pool.close()


@pytest.mark.slow
def test_answer_is_not_blamed_for_one_death_of_its_worker(tmp_path):
    pool = hostile()
    try:
        pool.start()
        place = tmp_path / "alive"
        place.mkdir()
        assert pool.submit(record(f"once {place}")).result(timeout=60) is Verdict.RIGHT
        assert not place.exists() and pool.crashes == 1
    finally:
        pool.close()


@pytest.mark.slow
def test_worker_that_is_killed_costs_its_own_answer_alone():
    pool = hostile()
    try:
        pool.start()
        [first] = workers(pool)
        os.kill(first, signal.SIGKILL)  # while it waits
        until(lambda: not alive(first))
        assert pool.submit(record("5")).result(timeout=60) is Verdict.RIGHT
        assert pool.crashes == 0
        hanging, after = pool.submit(record(HANGING)), pool.submit(record("5"))
        for _ in range(2):  # in the middle of an answer, and of its second attempt
            until(lambda: any(w.known and alive(w.process.pid) for w in pool._running))
            [pid] = workers(pool)
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not alive(pid))
        assert hanging.result(timeout=60) is Verdict.WRONG
        assert after.result(timeout=60) is Verdict.RIGHT
        assert (pool.crashes, pool.timeouts) == (1, 0)
    finally:
        pool.close()
    assert gone_within([pid, *workers(pool)])


def test_memory_of_a_worker_is_limited_and_its_environment_bare(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "1234")
    pool = WorkerPool("math", workers=1, seconds=60.0, memory_bytes=1 << 30)
    try:
        pool.start()
        [pid] = workers(pool)
        limits = pathlib.Path(f"/proc/{pid}/limits").read_text()
        assert f"Max address space         {1 << 30} " in limits
        assert "SECRET_KEY" not in pathlib.Path(f"/proc/{pid}/environ").read_text()
        assert "jaxlib" not in pathlib.Path(f"/proc/{pid}/maps").read_text()
        large = r"\binom{5}{2}" * 150  # nothing special: the worker still works under its limit
        assert pool.submit(record(large)).result(timeout=60) is Verdict.WRONG
    finally:
        pool.close()


def test_canceled_answers_are_not_judged_and_closing_ends_everything():
    pool = hostile()
    pool.start()
    [pid] = workers(pool)
    hanging = pool.submit(record(HANGING))
    waiting = [pool.submit(record("5")) for _ in range(3)]
    until(lambda: any(worker.known for worker in pool._running))
    assert waiting[0].cancel()
    pool.close()
    assert hanging.done() and all(future.cancelled() for future in waiting)
    assert gone_within([pid])
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(record("5"))


def test_workers_that_do_not_start_are_an_error():
    pool = WorkerPool("no such kind", workers=2, seconds=1.0)
    try:
        with pytest.raises(RuntimeError, match="does not start: KeyError: 'no such kind'"):
            pool.start()
        with pytest.raises(RuntimeError, match="does not start"):
            pool.submit(record("5")).result(timeout=60)
    finally:
        pool.close()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_workers_end_with_who_started_them(end):
    program = f"""
import os
from gtpo_jax.verifiers import WorkerPool
pool = WorkerPool("math", module={HOSTILE!r}, workers=2, seconds=600.0)
pool.start()
for given in ({HANGING!r}, "5"):
    last = pool.submit({{"expected": "5", "given": given, "tolerance": 0.0}})
last.result()
print("started", flush=True)
input()
{end}
"""
    command = [sys.executable, "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        assert parent.stdout.readline() == "started\n"
        pids = children_of_all_threads(parent.pid)
        assert len(pids) == 2
        parent.stdin.write("\n")
        parent.stdin.close()
    assert gone_within(pids, seconds=10.0)


def children_of_all_threads(pid):
    """The threads of a pool start its workers, and the kernel keeps the children of each apart."""
    texts = [path.read_text() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(word) for text in texts for word in text.split()]


@pytest.mark.slow
def test_family_of_reasoning_gym_judges_in_a_worker():
    pytest.importorskip("reasoning_gym", reason="needs the extra `reasoning`")
    task = GeneratedTask(seed=0, families=("reasoning-gym/countdown",), level=1)
    problem = task.train_problem(0)
    with KindVerifier(workers=1, seconds=60.0) as verifier:
        verifier.check(problem)
        assert verifier(problem, problem.answer) is Verdict.RIGHT
        assert verifier(problem, f"({problem.answer})") is Verdict.RIGHT  # equal, not the same
        assert verifier(problem, "1") is Verdict.WRONG
        changed = dataclasses.replace(problem, question="?")
        assert verifier(changed, problem.answer) is Verdict.UNVERIFIABLE
