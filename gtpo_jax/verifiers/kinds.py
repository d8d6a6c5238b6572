"""The verifier of a run: every answer is judged by the kind that its problem names."""

from __future__ import annotations

import collections
import dataclasses
import functools
import importlib.util
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Protocol, runtime_checkable

import numpy as np

from gtpo_jax.types import Problem, SubmittingVerifier, Tool, Verdict, Verifier
from gtpo_jax.verifiers import programs
from gtpo_jax.verifiers.choice import choice, expected_letter
from gtpo_jax.verifiers.numeric import TOLERANCE, exact, numeric_or_exact
from gtpo_jax.verifiers.pool import WorkerPool

KINDS = ("numeric", "exact", "math", "choice", "unit_tests", "reasoning-gym")
"""The kinds of answers that a run or a problem may have."""

OWN = "own"
"""The kind of a run whose verifier is a function of the user's."""

OwnVerifier = Callable[[Problem, str], "bool | Verdict"]
"""`(problem, answer) → True`, `False`, or a `Verdict`: a user's function, for answers that are not
blank. It is called while the rollout waits, so it has to be quick."""

_PACKAGES = {"math": ("math_verify", "tasks"), "reasoning-gym": ("reasoning_gym", "reasoning")}
"""Kind → the package that it needs, and the extra that installs it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifierStats:
    """Counts of the answers that a verifier has judged so far."""

    verdicts: dict[Verdict, int]
    timeouts: int  # answers that took too long: wrong or unverifiable
    crashes: int  # answers that a worker died of, or ran out of memory


@runtime_checkable
class _CheckingVerifier(Protocol):
    """A verifier that can tell beforehand which problems it could not judge."""

    def check(self, problem: Problem) -> None: ...


class KindVerifier:
    """A `types.Verifier` that judges by kind; use it as a context manager, for its processes.

    `kind` applies to problems that name none. Cheap kinds are judged at once. The others are
    judged while the caller goes on: `math` and `reasoning-gym` in `workers` processes each, with
    `seconds` for an answer; `unit_tests` by `tool`. A call waits for the verdict, `submit` does
    not. `own` is a function of the user's; it judges the answers to problems that name no kind.
    """

    def __init__(
        self,
        kind: str = "numeric",
        *,
        tolerance: float = TOLERANCE,
        seconds: float = 10.0,
        workers: int = 2,
        tool: Tool | None = None,
        own: OwnVerifier | None = None,
    ):
        kind = kind if own is None else OWN
        if own is None:
            _check_kind(kind, "the verifier of the run")
        self.kind, self.tolerance = kind, tolerance
        self.seconds, self.workers, self.tool = seconds, workers, tool
        self._verdicts: collections.Counter[Verdict] = collections.Counter()
        self._pools: dict[str, WorkerPool] = {}
        self._submitter: futures.ThreadPoolExecutor | None = None
        self._lock = threading.Lock()  # of all three
        self._in_place: dict[str, Verifier] = {
            "numeric": functools.partial(numeric_or_exact, tolerance=tolerance),
            "exact": exact,
            "choice": choice,
        }
        if own is not None:
            self._in_place[OWN] = functools.partial(_judge_by, own)
        self._beside: dict[str, Callable[[Problem, str], futures.Future[Verdict]]] = {
            "math": self._submit_math,
            "reasoning-gym": self._submit_reasoning,
            "unit_tests": self._submit_program,
        }

    def __call__(self, problem: Problem, answer: str | None) -> Verdict:
        return self.submit(problem, answer).result()

    def submit(self, problem: Problem, answer: str | None) -> futures.Future[Verdict]:
        """A future of the verdict; never waits for it."""
        kind = self._kind(problem)
        if answer is None or not answer.strip():
            future = _done(Verdict.NO_ANSWER)
        elif kind in self._in_place:
            future = _done(self._in_place[kind](problem, answer))
        else:
            future = self._beside[kind](problem, answer)
        future.add_done_callback(self._count)
        return future

    def check(self, problem: Problem) -> None:
        """Raises `ValueError` unless answers to the problem can be judged, before any is.

        The first problem of a kind that needs processes starts them.
        """
        kind, where = self._kind(problem), f"problem {problem.id!r}"
        wrong = ""
        if kind == "choice" and expected_letter(problem) is None:
            wrong = f"has the answer {problem.answer!r}, which is no letter of its choices"
        elif kind == "unit_tests" and self.tool is None:
            wrong = "has unit tests, and the verifier was given no tool to run them with"
        elif kind == "unit_tests":
            wrong = programs.check(problem)
        elif kind in ("numeric", "exact", "math") and not problem.answer.strip():
            wrong = f"has no answer to compare with, as the verifier {kind} does"
        if wrong:
            raise ValueError(f"{where} {wrong}")
        if kind in _PACKAGES and kind not in self._pools:
            self._pool(kind).start()

    @property
    def stats(self) -> VerifierStats:
        with self._lock:
            pools, verdicts = list(self._pools.values()), dict(self._verdicts)
        return VerifierStats(
            verdicts=verdicts,
            timeouts=sum(pool.timeouts for pool in pools),
            crashes=sum(pool.crashes for pool in pools),
        )

    def close(self) -> None:
        """Ends the processes; answers without a verdict are canceled."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
            submitter, self._submitter = self._submitter, None
        for pool in pools:
            pool.close()
        if submitter is not None:
            submitter.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> KindVerifier:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _kind(self, problem: Problem) -> str:
        if problem.verifier:
            _check_kind(problem.verifier, f"problem {problem.id!r}")
        return problem.verifier or self.kind

    def _submit_math(self, problem: Problem, answer: str) -> futures.Future[Verdict]:
        record = {"expected": problem.answer, "given": answer, "tolerance": self.tolerance}
        return self._pool("math").submit(record)

    def _submit_reasoning(self, problem: Problem, answer: str) -> futures.Future[Verdict]:
        names = ("id", "question", "family", "verifier")
        record = {name: getattr(problem, name) for name in names}
        return self._pool("reasoning-gym").submit(
            {**record, "expected": problem.answer, "given": answer}
        )

    def _submit_program(self, problem: Problem, answer: str) -> futures.Future[Verdict]:
        tool, tests = self.tool, problem.unit_tests
        if tool is None:
            raise ValueError("a verifier of unit_tests needs a tool to run them with; give it one")
        if tests is None:
            return _done(Verdict.UNVERIFIABLE)
        with self._lock:
            if self._submitter is None:
                self._submitter = futures.ThreadPoolExecutor(1, "gtpo_unit_tests")
            submitter = self._submitter
        # This thread waits while the queue of the tool is full; the caller does not.
        verdict: futures.Future[Verdict] = futures.Future()
        submitted = submitter.submit(programs.submit_program, tool, tests, answer)
        submitted.add_done_callback(lambda done: _follow(verdict, done))
        return verdict

    def _pool(self, kind: str) -> WorkerPool:
        package, extra = _PACKAGES[kind]
        with self._lock:
            if kind not in self._pools:
                if importlib.util.find_spec(package) is None:
                    raise ValueError(
                        f"the verifier {kind} needs {package}: pip install -e '.[{extra}]'"
                    )
                self._pools[kind] = WorkerPool(kind, workers=self.workers, seconds=self.seconds)
            return self._pools[kind]

    def _count(self, done: futures.Future[Verdict]) -> None:
        if not done.cancelled() and done.exception() is None:
            with self._lock:
                self._verdicts[done.result()] += 1


def submit(verifier: Verifier, problem: Problem, answer: str | None) -> futures.Future[Verdict]:
    """A future of any verifier's verdict. A plain function is called here, which waits for it."""
    if isinstance(verifier, SubmittingVerifier):
        return verifier.submit(problem, answer)
    return _done(verifier(problem, answer))


def check_problem(verifier: Verifier, problem: Problem) -> None:
    """Raises `ValueError` when the verifier knows that it could not judge answers to a problem."""
    if isinstance(verifier, _CheckingVerifier):
        verifier.check(problem)


def _judge_by(own: OwnVerifier, problem: Problem, answer: str | None) -> Verdict:
    verdict = own(problem, answer or "")
    if isinstance(verdict, Verdict):
        return verdict
    if isinstance(verdict, bool | np.bool_):
        return Verdict.RIGHT if verdict else Verdict.WRONG
    raise TypeError(
        f"a verifier must return True, False or a Verdict, got {verdict!r} for an answer to problem"
        f" {problem.id!r}"
    )


def _check_kind(kind: str, where: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"{where} names the verifier {kind!r}; there are {', '.join(KINDS)}")


def _done(verdict: Verdict) -> futures.Future[Verdict]:
    future: futures.Future[Verdict] = futures.Future()
    future.set_result(verdict)
    return future


def _follow(verdict: futures.Future[Verdict], done: futures.Future) -> None:
    """Sets a verdict to the outcome of a future that holds another future."""
    if not verdict.set_running_or_notify_cancel():
        return
    try:
        inner = done.result()
    except BaseException as error:
        verdict.set_exception(error)
        return
    inner.add_done_callback(lambda ended: _copy(verdict, ended))


def _copy(verdict: futures.Future[Verdict], ended: futures.Future[Verdict]) -> None:
    try:
        verdict.set_result(ended.result())
    except BaseException as error:
        verdict.set_exception(error)
