"""Facts of trajectories that the parts of a method need.

A part names the facts it reads; `packing.episode_batch` gathers them into `EpisodeBatch.facts`. So
a new method adds no field to `EpisodeBatch`, and a fact that no part reads costs nothing.

Ids are hashes of 31 bits: equal things have equal ids, and two different ones share an id with a
probability of 5e-10.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gtpo_jax.types import EpisodeBatch, ToolStatus, Trajectory, Turn

Gather = Callable[[Sequence[Trajectory], int], Any]
"""`(M trajectories, K turns) → arrays`, a pytree whose leaves are NumPy arrays `[M, ...]`."""


class Fact(NamedTuple):
    """A named fact of trajectories."""

    name: str
    gather: Gather | None  # None: `provider` computes it, it cannot be read off trajectories
    meaning: str = ""  # shape, unit, content
    provider: str = ""  # who computes a fact without `gather`
    fields: tuple[str, ...] = ()  # fields of `Problem.info` that `gather` reads


class Code(NamedTuple):
    """The code of all turns of each trajectory."""

    bytes: jax.Array | np.ndarray  # [M, C] int32, padded on the right
    lengths: jax.Array | np.ndarray  # [M] int32, in bytes


def text_id(*texts: str) -> int:
    """The id of texts, equal for equal texts: 31 bits, never negative."""
    return zlib.crc32("\x00".join(texts).encode("utf-8", "replace")) & 0x7FFFFFFF


def of_turns(
    function: Callable[[Turn], float], kind: type = np.float32
) -> Callable[[Sequence[Trajectory], int], np.ndarray]:
    """Gathers `[M, K]`: a number of each turn, 0 where there is no turn."""

    def gather(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
        values = np.zeros((len(trajectories), max_turns), kind)
        for row, trajectory in enumerate(trajectories):
            values[row, : len(trajectory.turns)] = [function(turn) for turn in trajectory.turns]
        return values

    return gather


def of_trajectories(
    function: Callable[[Trajectory], float], kind: type = np.float32
) -> Callable[[Sequence[Trajectory], int], np.ndarray]:
    """Gathers `[M]`: a number of each trajectory."""

    def gather(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
        del max_turns
        return np.array([function(trajectory) for trajectory in trajectories], kind)

    return gather


def from_plan(
    name: str,
    meaning: str,
    *,
    provider: str = "",
    missing: int | None = None,
    kind: type = np.int32,
) -> Fact:
    """A fact `[M]` that the plan recorded as `Trajectory.facts[name]`.

    Where it recorded none the fact is `missing`; if that is None, gathering raises `ValueError`
    with `provider`, the plans that record it.
    """

    def read_recorded(trajectory: Trajectory) -> Any:
        value = trajectory.facts.get(name, missing)
        if value is None:
            raise ValueError(
                f"the method needs the fact {name!r} ({meaning}), which the plan did not record for"
                f" problem {trajectory.problem.id!r}; {provider}"
            )
        return value

    return Fact(name, of_trajectories(read_recorded, kind), meaning, provider)


def measured(fact: Fact, function: Callable[[Trajectory], float] | None) -> Fact:
    """The fact `[M]` as a function of one's own measures it; unchanged without a function."""
    return fact if function is None else fact._replace(gather=of_trajectories(function))


def code_texts(trajectories: Sequence[Trajectory]) -> list[str]:
    """The code of each trajectory, one turn under the other; empty where there is none."""
    return ["\n".join(turn.code for turn in t.turns if turn.code is not None) for t in trajectories]


def gather_code(trajectories: Sequence[Trajectory], max_turns: int) -> Code:
    """The code as UTF-8. C is a power of two, at least 64, to limit the number of shapes."""
    del max_turns
    texts = [text.encode() for text in code_texts(trajectories)]
    width = 64
    while width < max(map(len, texts), default=0):
        width *= 2
    code = np.zeros((len(texts), width), np.int32)
    for row, text in enumerate(texts):
        code[row, : len(text)] = np.frombuffer(text, np.uint8)
    return Code(code, np.array([len(text) for text in texts], np.int32))


def seen_text(turn: Turn) -> str:
    """The results of the calls of a turn as a text, without what differs between equal runs."""
    return "\n".join(
        f"{result.status} {result.stdout.strip()} {result.exception or ''}"
        for result in turn.results
    )


def done_text(turn: Turn) -> str:
    """The action of a turn: its code without blank lines and trailing blanks, or its text."""
    text = turn.code if turn.code is not None else turn.text
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def gather_anchors(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
    """Ids `[M, K]` of the problem and of what the policy saw directly before each turn."""
    ids = np.zeros((len(trajectories), max_turns), np.int32)
    for row, trajectory in enumerate(trajectories):
        seen = ["", *(seen_text(turn) for turn in trajectory.turns)]
        for k in range(len(trajectory.turns)):
            first = "first" if k == 0 else "later"
            ids[row, k] = text_id(trajectory.problem.id, first, seen[k])
    return ids


def gather_contexts(trajectories: Sequence[Trajectory], max_turns: int) -> np.ndarray:
    """Ids `[M, K]` of all tokens before each turn: prompt, earlier turns and their observations."""
    ids = np.zeros((len(trajectories), max_turns), np.int32)
    for row, trajectory in enumerate(trajectories):
        seen = zlib.crc32(np.asarray(trajectory.prompt, np.int32).tobytes())
        for k, turn in enumerate(trajectory.turns):
            ids[row, k] = seen & 0x7FFFFFFF
            for tokens in (turn.tokens, turn.observation):
                size = np.int32(len(tokens)).tobytes()
                seen = zlib.crc32(size + np.asarray(tokens, np.int32).tobytes(), seen)
    return ids


def _errors(turn: Turn) -> int:
    fine = (ToolStatus.OK, ToolStatus.INFRA_ERROR)
    return sum(result.status not in fine for result in turn.results)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0


CODE = Fact("code", gather_code, "bytes [M, C] and lengths [M] of the code of all turns")
RESPONSE_TOKENS = Fact(
    "response_tokens",
    of_trajectories(lambda t: sum(turn.own_tokens for turn in t.turns), np.int32),
    "[M] int32, tokens that the policy wrote",
)
TURN_TOKENS = Fact(
    "turn_tokens",
    of_turns(lambda turn: turn.own_tokens, np.int32),
    "[M, K] int32, tokens that the policy wrote in the turn",
)
CALLS = Fact("calls", of_turns(lambda turn: len(turn.codes), np.int32), "[M, K] int32, tool calls")
CALL_ERRORS = Fact(
    "call_errors",
    of_turns(_errors, np.int32),
    "[M, K] int32, calls that failed through the fault of the code",
)
TURN_ENTROPIES = Fact(
    "turn_entropies",
    of_turns(lambda turn: _mean(turn.entropies[turn.given :])),
    "[M, K] float32, nats, mean entropy of the policy over the tokens of the turn",
)
TURN_LOGPROBS = Fact(
    "turn_logprobs",
    of_turns(lambda turn: _mean(turn.logprobs[turn.given :])),
    "[M, K] float32, nats, mean log-prob of the tokens of the turn when they were sampled",
)
ANCHORS = Fact(
    "anchors",
    gather_anchors,
    "[M, K] int32, id of the problem and of the tool output that the policy saw before the turn",
)
CONTEXTS = Fact(
    "contexts",
    gather_contexts,
    "[M, K] int32, id of all tokens before the turn: prompt, earlier turns, observations",
)
ACTIONS = Fact(
    "actions",
    of_turns(lambda turn: text_id(done_text(turn)), np.int32),
    "[M, K] int32, id of the code of the turn, or of its text where it calls nothing",
)
ANSWERS = Fact(
    "answers",
    of_trajectories(
        lambda t: -1 if t.answer is None else text_id(" ".join(t.answer.split()).lower()), np.int32
    ),
    "[M] int32, id of the final answer as a text; -1 if there is none",
)
PROBLEMS = Fact(
    "problems",
    of_trajectories(lambda t: text_id(t.problem.id), np.int32),
    "[M] int32, id of the problem, the same in every step",
)
VERSIONS = Fact(
    "versions",
    of_turns(lambda turn: turn.version, np.int32),
    "[M, K] int32, oldest version of the parameters that wrote a token of the turn",
)
POLICY_STATES = Fact(
    "policy_states",
    None,
    "[M, D] float32, mean final hidden state of the policy over the tokens of turns with code;"
    " zeros if there are none",
    "`training.Training` computes it with the policy",
)
TURN_STATES = Fact(
    "turn_states",
    None,
    "[M, K, D] float32, final hidden state of the policy at the last token before each turn; zeros"
    " where there is no turn",
    "`training.Training` computes it with the policy",
)
TOKEN_LIKENESS = Fact(
    "token_likeness",
    None,
    "[M, L] float32, for each token that the policy wrote, the product of the gradient of its"
    " log-prob by the head of the model with the sum of those of the tokens of the successes of its"
    " group; 0 on padding",
    "`training.Training` computes it with the policy",
)
REFERENCE_ANSWER_LOGPROBS = Fact(
    "reference_answer_logprobs",
    None,
    "[M] float32, nats, mean log-prob of the tokens of the last turn under the policy that training"
    " began with",
    "`training.Training` computes it with the reference policy",
)
ANSWER_LOGPROBS = Fact(
    "answer_logprobs",
    None,
    "[M, K] float32, nats, mean log-prob of the tokens of the gold answer under the policy, if it"
    " answered after the turn and its observation",
    "`training.Training` computes it if it is given `answer_tokens`, as `launch.train` does",
)
ANSWER_LOGPROBS_BEFORE = Fact(
    "answer_logprobs_before",
    None,
    "[M] float32, nats, mean log-prob of the tokens of the gold answer under the policy, if it"
    " answered in place of the first turn",
    "`training.Training` computes it if it is given `answer_tokens`, as `launch.train` does",
)
STEP = Fact(
    "step",
    None,
    "[M] int32, number of the training step, from 0",
    "`training.Training` counts steps",
)
REWARD_PARTS = Fact(
    "reward_parts",
    None,
    "name → [M, K] float32, the rewards before they are summed",
    "`methods.assign` passes them to the credit",
)


def union(*groups: Iterable[Fact]) -> tuple[Fact, ...]:
    """Every fact once, in the order of first mention.

    Raises `ValueError` if two facts of one name are gathered differently.
    """
    facts: dict[str, Fact] = {}
    for fact in (fact for group in groups for fact in group):
        if facts.setdefault(fact.name, fact) != fact:
            raise ValueError(f"two facts are named {fact.name!r}; give one of them another name")
    return tuple(facts.values())


def check_provided(needs: Iterable[Fact], computed: Iterable[Fact]) -> None:
    """Raises `ValueError` for a fact that nobody provides: neither the trajectories nor whoever
    calls this, which is able to compute `computed`.
    """
    known = {fact.name for fact in computed}
    for fact in needs:
        if fact.gather is None and fact.name not in known:
            raise ValueError(
                f"the method needs the fact {fact.name!r} ({fact.meaning}), which this run does"
                f" not record; {fact.provider}"
            )


def check_fields(needs: Iterable[Fact], info: Mapping[str, Any], problem: str) -> None:
    """Raises `ValueError` if a problem's `info` lacks a field that a fact is read from."""
    for fact in needs:
        missing = [name for name in fact.fields if name not in info]
        if missing:
            raise ValueError(
                f"the method needs the fact {fact.name!r} ({fact.meaning}), which is read from the"
                f" fields {', '.join(fact.fields)} of a problem's record; problem {problem!r} lacks"
                f" {', '.join(missing)}"
            )


def read(episodes: EpisodeBatch, fact: Fact) -> Any:
    """The arrays of a fact. Raises `ValueError` if the episodes do not have it."""
    if fact.name not in episodes.facts:
        way = (
            "pass facts=method.facts to `packing.episode_batch`"
            if fact.gather is not None
            else fact.provider
        )
        raise ValueError(
            f"the method needs the fact {fact.name!r}, the episodes hold"
            f" {sorted(episodes.facts) or 'none'}; {way}"
        )
    return episodes.facts[fact.name]
