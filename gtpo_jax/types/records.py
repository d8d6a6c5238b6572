"""Host records: problems, requests, turns, trajectories, results of tools. Frozen and ragged."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class StopReason(enum.StrEnum):
    """The reason why a trajectory ended.

    | reason | what happened | outcome | trained on |
    |---|---|---|---|
    | `answered` | the policy gave an answer | verifier | yes |
    | `no_action` | a turn held neither a call nor an answer | failure | yes |
    | `max_turns` | the last turn allowed still called the tool | failure | yes |
    | `turn_limit` | the turn did not end in its token budget | failure, format violation | yes |
    | `context_full` | no room left for the observation or another turn | unknown | no |
    | `tool_failure` | the tool itself broke, through no fault of the policy | unknown | no |
    """

    ANSWERED = "answered"
    NO_ACTION = "no_action"
    MAX_TURNS = "max_turns"
    TURN_LIMIT = "turn_limit"
    CONTEXT_FULL = "context_full"
    TOOL_FAILURE = "tool_failure"

    @property
    def truncated(self) -> bool:
        """True if a limit cut the episode off, False if the policy ended it."""
        return self in (StopReason.MAX_TURNS, StopReason.TURN_LIMIT, StopReason.CONTEXT_FULL)


class Verdict(enum.StrEnum):
    """The judgment of a verifier. `UNVERIFIABLE` answers are excluded, never scored as wrong."""

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    UNVERIFIABLE = "unverifiable"


class ToolStatus(enum.StrEnum):
    """The outcome of a tool call. `INFRA_ERROR` is the tool's fault, others are the code's."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    CRASH = "crash"
    OUTPUT_LIMIT = "output_limit"
    CPU_LIMIT = "cpu_limit"
    MEMORY = "memory"
    INFRA_ERROR = "infra_error"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolResult:
    """The result of one tool call."""

    status: ToolStatus
    stdout: str = ""
    stderr: str = ""
    exception: str | None = None
    """The uncaught exception as text: type, message, notes. Empty: there was none. None: the tool
    does not report exceptions."""
    truncated_bytes: int = 0  # output bytes dropped because of the limit
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0  # peak resident set of the call, including the preloaded interpreter
    state_lost: bool = False  # the session lost the variables of earlier calls


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamTest:
    """A standard input of a program, and the standard output it must write."""

    stdin: str
    stdout: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitTests:
    """Unit tests that judge a program given as the answer.

    `tests` judge a program that defines names, `streams` one that reads and writes.
    """

    __test__ = False  # or pytest would collect the class

    tests: tuple[str, ...] = ()  # Python code that raises when the program is wrong
    streams: tuple[StreamTest, ...] = ()  # the fields below do not apply to them
    setup: str = ""  # imports and helpers, run before the tests
    names: tuple[str, ...] | None = None  # global names of the program visible to tests; None: all
    prompt: str = ""  # start of the program, if the answer may be a completion of it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem to solve."""

    id: str  # unique in its source; part of the random key of every trajectory
    question: str
    answer: str
    family: str = ""  # a label for reporting
    verifier: str = ""  # the kind of its answer, which says how it is judged; empty: the run's
    choices: tuple[str, ...] = ()  # texts of the choices A, B, … when one of them is the answer
    unit_tests: UnitTests | None = None  # when the answer is a program
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False, repr=False)
    """Further fields of its record, any JSON, for rewards of one's own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One trajectory to produce."""

    problem: Problem
    group: int  # index of the group within the rollout
    sample: int  # number of the trajectory, part of its random key; distinct within its group
    question: str | None = None
    """Question that the prompt asks in place of the problem's, such as one with a hint."""
    turns: tuple[Turn, ...] = ()
    """Turns of another trajectory that this one begins with, observations included."""
    begun: Turn | None = None
    """Beginning of a turn that the first turn it samples goes on from, or all of a turn. Its tokens
    count as written by the policy, with its log-probs."""
    opening: str = ""
    """Text that the first turn it samples begins with; it counts as the environment's."""
    script: tuple[str, ...] = ()
    """Texts of its first own turns, written for the policy, as those of a gold answer are. Their
    code is run."""
    temperature: float = 1.0
    """Factor on the temperature of the sampler; 0 is greedy. Log-probs are recorded at the
    temperature of the run all the same."""

    @property
    def plain(self) -> bool:
        """True if nothing but the prompt of its problem stands before its first turn."""
        return self.question is None and not (
            self.turns or self.begun or self.opening or self.script
        )


class GoldAnswer(NamedTuple):
    """The gold answer of a problem as the policy would write it."""

    opening: np.ndarray  # [n] int32, ids of a turn before the answer itself
    answer: np.ndarray  # [m] int32, ids of the answer itself, at least one


AnswerTokens = Callable[[Problem], GoldAnswer]
"""Writes gold answers. Raises `ValueError` for an answer that cannot be written."""


class Candidates(NamedTuple):
    """The likeliest tokens of the distributions that tokens were drawn from, the likeliest first.

    Places beyond the vocabulary have id 0 and log-prob −inf.
    """

    ids: Any  # [..., K] int32
    logprobs: Any  # [..., K] float32, of the sampler at its temperature


def _no_floats() -> np.ndarray:
    return np.zeros(0, np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """One contiguous text of the policy, and the tool's reply to it.

    Fields that were not measured are empty: a demonstration has no entropies.
    """

    tokens: np.ndarray  # [n] int32, sampled, including the token that ended the turn
    logprobs: np.ndarray  # [n] float32, under the policy, at the temperature of the run; 0 for
    # given tokens, empty for a turn that was written for the policy
    sampled_logprobs: np.ndarray = dataclasses.field(
        default_factory=_no_floats
    )  # [n] float32, under the truncated distribution (top-k, top-p, min-p)
    entropies: np.ndarray = dataclasses.field(
        default_factory=_no_floats
    )  # [n] float32, nats, of the policy at the temperature of the sampler
    candidates: Candidates | None = None  # [n, K], if the method asks for them
    version: int = 0  # oldest parameter version that a token was sampled with
    text: str
    codes: tuple[str, ...] = ()  # the code of each call, if the turn holds valid calls
    violation: str | None = None  # the rule of the grammar that the turn broke
    results: tuple[ToolResult, ...] = ()  # one per call, in order
    observation: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.int32)
    )  # [m] int32, appended by the environment, including separators
    observation_dropped: int = 0  # tokens of tool output cut to fit the budget
    given: int = 0  # tokens at its beginning that the environment wrote; they are not trained
    places: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.int32)
    )  # [n] int32, places in the response of tokens that were not written one after another

    @property
    def own_tokens(self) -> int:
        """Number of tokens that the policy wrote."""
        return len(self.tokens) - self.given

    @property
    def code(self) -> str | None:
        """The code of all calls, joined; None if the turn calls nothing."""
        return "\n".join(self.codes) if self.codes else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One episode: a prompt, the turns of the policy, and the verdict."""

    problem: Problem
    group: int  # index of the prompt within the rollout
    sample: int  # index of the trajectory within its group
    prompt: np.ndarray  # [p] int32
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    verdict: Verdict
    answer: str | None = None
    shared_turns: int = 0  # turns at its beginning that are those of another trajectory
    off_policy: bool = False  # its turns were written for the policy: their log-probs are unknown
    trained: bool = True  # otherwise it takes part in the credit, and no token of it is trained
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Facts that its plan found, by name: numbers, or arrays of one number for each turn."""

    @property
    def success(self) -> bool:
        return self.verdict is Verdict.RIGHT

    @property
    def included(self) -> bool:
        """True if the outcome is known: the trajectory may enter baselines and the loss."""
        unknown = (StopReason.CONTEXT_FULL, StopReason.TOOL_FAILURE)
        return self.stop_reason not in unknown and self.verdict is not Verdict.UNVERIFIABLE

    @property
    def length(self) -> int:
        """Number of tokens of the episode: prompt, turns and observations."""
        return len(self.prompt) + sum(len(t.tokens) + len(t.observation) for t in self.turns)
