"""The vocabulary of the library: host records of what happened, the device
batch, and the protocols.

Host records (`Problem`, `Turn`, `Trajectory`, `ToolResult`) are frozen and ragged; they are written
once by the rollout and only read afterwards. `TokenBatch` is the one container that goes to the
device. Containers hold data and check nothing: functions validate at the public edges.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

import jax
import numpy as np

Params = Any
"""Parameters of a model: an opaque pytree of arrays."""

Scalar = float | int | jax.Array
"""A hyperparameter. Handed to a jitted function it is traced: sweeping it recompiles nothing."""

Cache = Any
"""Key/value cache of a model: an opaque pytree whose every leaf is `[rows, positions, ...]`."""


class StopReason(enum.StrEnum):
    """Why a trajectory ended.

    | reason | what happened | outcome | trained on |
    |---|---|---|---|
    | `answered` | the policy gave its answer | verifier | yes |
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
        """A limit cut the episode; otherwise the policy itself brought it to its end."""
        return self in (StopReason.MAX_TURNS, StopReason.TURN_LIMIT, StopReason.CONTEXT_FULL)


class Verdict(enum.StrEnum):
    """What the verifier says of an answer. `UNVERIFIABLE` is never scored as wrong: it is
    excluded.
    """

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    UNVERIFIABLE = "unverifiable"


class ToolStatus(enum.StrEnum):
    """How a tool call ended. `INFRA_ERROR` is ours, every other status is a
    consequence of the code.
    """

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
    """Everything known of one tool call."""

    status: ToolStatus
    stdout: str = ""
    stderr: str = ""
    exception: str | None = None
    """An exception that nobody caught, as a person would be told it: type, message, notes. Empty
    when there was none; None where the tool does not know."""
    truncated_bytes: int = 0  # output bytes beyond the limit, dropped
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0  # largest resident set of the call, the preloaded interpreter's included
    state_lost: bool = False  # variables that earlier calls of its session left are gone


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamTest:
    """The standard output that a program must write when it reads a standard input."""

    stdin: str
    stdout: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitTests:
    """Tests that judge a program given as the answer: `tests` of one that defines names, or
    `streams` of one that reads and writes.
    """

    __test__ = False  # pytest takes the name for a class of tests

    tests: tuple[str, ...] = ()  # each of them Python that raises when the program is wrong
    streams: tuple[StreamTest, ...] = ()  # nothing of what follows concerns them
    setup: str = ""  # imports and helpers, run first
    names: tuple[str, ...] | None = None  # global names of the program that tests see; None: all
    prompt: str = ""  # the beginning of a program whose end alone may be the answer


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
    sample: int  # index of the trajectory within its group


def _no_floats() -> np.ndarray:
    return np.zeros(0, np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """One contiguous piece that the policy wrote, and the tool's reply to it.

    What nobody measured has no elements: a demonstration has no entropies.
    """

    tokens: np.ndarray  # [n] int32, sampled, the token that ended the turn included
    logprobs: np.ndarray  # [n] float32, under the policy, at the temperature of the sampler
    sampled_logprobs: np.ndarray = dataclasses.field(
        default_factory=_no_floats
    )  # [n] float32, under what truncation left of that
    entropies: np.ndarray = dataclasses.field(
        default_factory=_no_floats
    )  # [n] float32, nats, of the policy at that temperature
    version: int = 0  # of the parameters: the oldest ones that a token was sampled with
    text: str
    codes: tuple[str, ...] = ()  # the calls, when the turn holds valid ones
    violation: str | None = None  # the rule of the dialogue that the turn broke
    results: tuple[ToolResult, ...] = ()  # of the calls, in their order
    observation: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.int32)
    )  # [m] int32, appended by the environment, separators included
    observation_dropped: int = 0  # tokens of tool output cut to fit the budget

    @property
    def code(self) -> str | None:
        """All calls as one text; None when there is none."""
        return "\n".join(self.codes) if self.codes else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One episode for one prompt."""

    problem: Problem
    group: int  # index of the prompt within the rollout
    sample: int  # index of the trajectory within its group
    prompt: np.ndarray  # [p] int32
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    verdict: Verdict
    answer: str | None = None

    @property
    def success(self) -> bool:
        return self.verdict is Verdict.RIGHT

    @property
    def included(self) -> bool:
        """The outcome is known, so the trajectory may enter baselines and the loss."""
        unknown = (StopReason.CONTEXT_FULL, StopReason.TOOL_FAILURE)
        return self.stop_reason not in unknown and self.verdict is not Verdict.UNVERIFIABLE

    @property
    def length(self) -> int:
        """Tokens of the whole episode: prompt, turns and observations."""
        return len(self.prompt) + sum(len(t.tokens) + len(t.observation) for t in self.turns)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Packed rows for the learner. Every array is `[..., B, T]` and token-aligned.

    Several documents may share a row; `segment_ids` keeps them apart, 0 marks padding. Turn indices
    are those of the turn whose policy *wrote* the token, −1 for prompt, tool output and padding.

    With `prefix_ids`, documents of a row may share a prefix: it is a segment of its own, of no
    trajectory, that comes before theirs in the row, and their positions go on from it.
    """

    tokens: jax.Array  # int32
    positions: jax.Array  # int32, position within the document
    segment_ids: jax.Array  # int32, document within the row, counted from 1; 0 = padding
    loss_mask: jax.Array  # bool, the policy wrote this token and it may be trained on
    turn_ids: jax.Array  # int32
    trajectory_ids: jax.Array  # int32, document within the batch, −1 = padding or shared
    behavior_logprobs: jax.Array  # float32
    token_advantages: jax.Array  # float32
    prefix_ids: jax.Array | None = None
    """int32, segment that the token's own one continues, 0 = none; None: nothing is shared."""
    proximal_logprobs: jax.Array | None = None
    """float32, of the policy that a step began with, by the learner; None: `behavior_logprobs`."""
    reference_logprobs: jax.Array | None = None
    """float32, of the policy that the trained one is held to; None: it is held to none."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeBatch:
    """M trajectories of at most K turns, as credit assignment sees them."""

    group_ids: jax.Array  # [M] int32
    included: jax.Array  # [M] bool, the outcome is known
    success: jax.Array  # [M] bool
    turn_mask: jax.Array  # [M, K] bool
    violations: jax.Array  # [M, K] bool
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Name → arrays `[M, ...]` that parts of a method ask for; see `parts.facts`."""


class HiddenFn(Protocol):
    """Runs the decoder.

    Without a cache, token `[b, t]` attends to tokens `[b, :t+1]` of its own segment, and with
    `prefix_ids` also to those of segment `prefix_ids[b, t]`, if that is not 0. With a cache, it is
    written to slot `positions[b, t]` (dropped when that lies beyond the cache) and attends to the
    slots up to that position. Returns hidden states `[B, T, D]` and the cache, written to.
    """

    def __call__(
        self,
        params: Params,
        tokens: jax.Array,
        positions: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        prefix_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]: ...


@dataclasses.dataclass(frozen=True)
class ForwardFn:
    """A language model as pure functions: all that the library knows of one.

    The leaves of a cache are `[B, KV, S, H]` (rows, key heads, positions, features), or have other
    axes than KV between the first and the last two.
    """

    hidden: HiddenFn
    logits: Callable[[Params, jax.Array], jax.Array]  # hidden states [..., D] → float32 [..., V]
    init_cache: Callable[[int, int], Cache]  # rows, positions → an empty cache
    vocab_size: int
    for_decoding: Callable[[Params], Params] = lambda params: params
    """The same parameters, also taken by `hidden` and `logits`, as many steps of single tokens read
    them best: applied once to each decode segment, inside its program."""


class Tool(Protocol):
    """Runs code. `submit` never blocks for the call itself and never raises for what the
    code does.
    """

    def submit(self, code: str, *, timeout: float | None = None) -> Future[ToolResult]: ...


class Verifier(Protocol):
    """Judges the answer of a finished trajectory. A plain function is one."""

    def __call__(self, problem: Problem, answer: str | None) -> Verdict: ...


class SubmittingVerifier(Verifier, Protocol):
    """A verifier that takes its time beside the caller: a rollout goes on meanwhile, and gathers
    its verdicts at the end.
    """

    def submit(self, problem: Problem, answer: str | None) -> Future[Verdict]: ...


class Tokenizer(Protocol):
    """Text to ids and back. Control symbols have ids but no text that
    `encode` would turn into them.
    """

    @property
    def vocab_size(self) -> int:
        """One more than the highest id; the sampler chooses none beyond."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; never a control symbol, whatever the text holds."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Text of ids, control symbols written out."""
        ...

    def control_id(self, symbol: str) -> int:
        """Id of a control symbol."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 that a token adds to the text, part of a character perhaps; `b""` for a control
        symbol that is no text of a turn.

        Without such symbols, `b"".join(map(token_bytes, ids))` is `decode(ids)` encoded, whenever
        it is UTF-8.
        """
        ...


class TemplateTokenizer(Tokenizer, Protocol):
    """A tokenizer that lists its control symbols, so that a chat template can be read for them."""

    @property
    def control_symbols(self) -> Mapping[str, int]:
        """Ids of all control symbols."""
        ...
