"""Facts of trajectories that only a policy can compute, from packed batches.

Hidden states and log-probs are pooled on the device, so a step reads a few numbers per trajectory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax.learner.likeness import token_likeness
from gtpo_jax.learner.scores import filled_micro_batches, micro_batch_at
from gtpo_jax.maths import masking, similarity
from gtpo_jax.parts import facts
from gtpo_jax.parts.spreads import written_width
from gtpo_jax.types import (
    AnswerTokens,
    ForwardFn,
    Params,
    StopReason,
    TokenBatch,
    Trajectory,
    Turn,
    Verdict,
)

OF_STATES = (facts.POLICY_STATES, facts.TURN_STATES)
"""Facts that `pooled_states` computes."""

OF_ANSWERS = (facts.ANSWER_LOGPROBS, facts.ANSWER_LOGPROBS_BEFORE)
"""Facts that `answer_facts` computes."""

FACTS = (*OF_STATES, facts.REFERENCE_ANSWER_LOGPROBS, *OF_ANSWERS)

OF_GROUPS = (facts.TOKEN_LIKENESS,)
"""Facts that `likeness.token_likeness` computes, if the parts have whole groups."""

Pack = Callable[[Sequence[Trajectory], np.ndarray, Sequence[Sequence[int]]], Iterator[TokenBatch]]
"""`(trajectories, advantages [M, K], parts) → batches`, one for each part, all of one shape."""


class Measured(NamedTuple):
    """The measured facts of a step, and the scores that came with them."""

    facts: dict[str, np.ndarray]
    reference_logprobs: list[jax.Array]  # [A, B, T] of each part; empty if no fact needs them


class Measures:
    """The facts that a method needs and only a policy can compute, compiled."""

    def __init__(
        self,
        forward: ForwardFn,
        logprobs: Callable[[Params, TokenBatch], jax.Array],
        needs: Iterable[facts.Fact],
        *,
        trajectories: int,
        max_turns: int,
        row_tokens: int,
        answer_tokens: AnswerTokens | None,
        groups: int = 0,
        temperature: float = 1.0,
        chunk: int | None = None,
    ):
        """`trajectories`: the largest number in a part, and `groups` that of groups. `logprobs` is
        `scores.stepwise_logprobs`, jitted. Facts that others compute are ignored.
        """
        needed = {fact.name for fact in needs}
        self.names = [fact.name for fact in (*FACTS, *OF_GROUPS) if fact.name in needed]
        self.logprobs, self.answer_tokens = logprobs, answer_tokens
        self.trajectories, self.max_turns, self.row_tokens = trajectories, max_turns, row_tokens
        of_states = self._needed(*OF_STATES)
        self.states = jax.jit(
            functools.partial(
                pooled_states, forward, names=of_states, trajectories=trajectories, turns=max_turns
            )
        )
        self.likeness = jax.jit(
            functools.partial(
                token_likeness, forward, groups=groups, temperature=temperature, chunk=chunk
            )
        )
        self.last_turns = jax.jit(functools.partial(last_turn_means, trajectories=trajectories))

    @property
    def needs_reference(self) -> bool:
        """True if a fact needs the policy that training began with."""
        return bool(self._needed(facts.REFERENCE_ANSWER_LOGPROBS))

    def passes(self, parts: int) -> dict[str, tuple[Any, int]]:
        """Name → program and calls per step, without those for the reference policy.

        The answers take at most so many calls: one answer after each turn that has an observation,
        and one before them.
        """
        passes: dict[str, tuple[Any, int]] = {}
        if self._needed(*OF_STATES):
            passes["policy states"] = (self.states, parts)
        if self._needed(*OF_GROUPS):
            passes["token likeness"] = (self.likeness, parts)
        if self._needed(*OF_ANSWERS):
            passes["answer log-probs"] = (self.logprobs, parts * self.max_turns)
        return passes

    def __call__(
        self,
        params: Params,
        reference: Params,
        trajectories: Sequence[Trajectory],
        parts: Sequence[Sequence[int]],
        pack: Pack,
    ) -> Measured:
        """Measures the trajectories, which `parts` divide among batches."""
        found: dict[str, np.ndarray] = {}
        scores: list[jax.Array] = []
        of_states = self._needed(*OF_STATES)
        if of_states or self.needs_reference:
            pooled = []
            for batch in pack(trajectories, self._marks(trajectories), parts):
                states = self.states(params, batch) if of_states else {}
                if self.needs_reference:
                    scores.append(self.logprobs(reference, batch))
                    name = facts.REFERENCE_ANSWER_LOGPROBS.name
                    states[name] = self.last_turns(scores[-1], batch)
                pooled.append(jax.device_get(states))
            found |= _joined(pooled, parts, len(trajectories))
        if self._needed(*OF_GROUPS):
            batches = pack(trajectories, self._marks(trajectories), parts)
            scored = [(batch, self.likeness(params, batch)) for batch in batches]
            found[facts.TOKEN_LIKENESS.name] = of_written_tokens(scored, parts, trajectories)
        if self._needed(*OF_ANSWERS):
            found |= self._answers(params, trajectories, pack)
        return Measured({name: found[name] for name in self.names}, scores)

    def _answers(
        self, params: Params, trajectories: Sequence[Trajectory], pack: Pack
    ) -> dict[str, np.ndarray]:
        """The facts of `OF_ANSWERS`."""
        assert self.answer_tokens is not None
        sequences, index = answer_sequences(
            trajectories,
            self.answer_tokens,
            max_turns=self.max_turns,
            row_tokens=self.row_tokens,
        )
        numbers, size = range(len(sequences)), self.trajectories
        parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        batches = pack(sequences, np.ones((len(sequences), 1), np.float32), parts)
        means = [self.last_turns(self.logprobs(params, batch), batch) for batch in batches]
        scores = [
            np.asarray(values)[: len(part)] for values, part in zip(means, parts, strict=True)
        ]
        return answer_facts(index, np.concatenate([np.zeros(0, np.float32), *scores]))

    def _marks(self, trajectories: Sequence[Trajectory]) -> np.ndarray:
        """Advantages of 1 for turns with code, whose states `pooled_states` averages; or else 0."""
        return facts.of_turns(lambda turn: bool(turn.codes))(trajectories, self.max_turns)

    def _needed(self, *among: facts.Fact) -> list[str]:
        return [fact.name for fact in among if fact.name in self.names]


def _joined(
    pooled: Sequence[dict[str, np.ndarray]], parts: Sequence[Sequence[int]], count: int
) -> dict[str, np.ndarray]:
    """Arrays of parts as arrays of all `count` trajectories."""
    joined = {name: np.zeros((count, *x.shape[1:]), x.dtype) for name, x in pooled[0].items()}
    for values, part in zip(pooled, parts, strict=True):
        for name, x in values.items():
            joined[name][list(part)] = x[: len(part)]
    return joined


def of_written_tokens(
    scored: Sequence[tuple[TokenBatch, jax.Array]],
    parts: Sequence[Sequence[int]],
    trajectories: Sequence[Trajectory],
) -> np.ndarray:
    """Numbers `[A, B, T]` of the tokens of each part as `[M, L]`, as `spreads.Written` has them; 0
    on padding and for trajectories that are not in a batch.
    """
    found = np.zeros((len(trajectories), written_width(trajectories)), np.float32)
    for (batch, values), part in zip(scored, parts, strict=True):
        ids, trained, values = jax.device_get((batch.trajectory_ids, batch.loss_mask, values))
        # A trajectory is whole in one row, in order.
        for number, index in enumerate(part):
            own = values[trained & (ids == number)]
            found[index, : len(own)] = own
    return found


def pooled_states(
    forward: ForwardFn,
    params: Params,
    batch: TokenBatch,
    *,
    names: Sequence[str],
    trajectories: int,
    turns: int,
) -> dict[str, jax.Array]:
    """Facts of `OF_STATES` with these names, from one pass over a batch `[A, B, T]`.

    `policy_states [trajectories, D]` is the mean final hidden state over trained tokens with a
    nonzero advantage; 0 for a trajectory without any. `turn_states [trajectories, turns, D]` is the
    state of the token before each turn (`states_before_turns`).
    """

    def pooled(index: jax.Array | int) -> dict[str, jax.Array]:
        micro_batch = micro_batch_at(batch, index)
        hidden, _ = forward.hidden(
            params,
            micro_batch.tokens,
            micro_batch.positions,
            segment_ids=micro_batch.segment_ids,
            prefix_ids=micro_batch.prefix_ids,
        )
        marked = micro_batch.loss_mask & (micro_batch.token_advantages != 0)
        pools = {
            facts.POLICY_STATES.name: lambda: similarity.mean_pooled(
                hidden, marked, micro_batch.trajectory_ids, trajectories=trajectories
            ),
            facts.TURN_STATES.name: lambda: states_before_turns(
                hidden, micro_batch, trajectories=trajectories, turns=turns
            ),
        }
        return {name: pools[name]() for name in names}

    # A trajectory is whole in one row, so all other rows add zeros to its states.
    shapes = jax.eval_shape(pooled, 0)
    return jax.lax.fori_loop(
        0,
        filled_micro_batches(batch),
        lambda index, total: jax.tree.map(jnp.add, total, pooled(index)),
        jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes),
    )


def states_before_turns(
    hidden: jax.Array, batch: TokenBatch, *, trajectories: int, turns: int
) -> jax.Array:
    """Hidden state `[trajectories, turns, D]` of the last token before each turn of `[B, T]`.

    It is 0 where there is no turn, and for a first turn without a prompt. The result carries no
    gradient.
    """

    def before(x: jax.Array) -> jax.Array:
        return jnp.pad(x[:, :-1], ((0, 0), (1, 0), *[(0, 0)] * (x.ndim - 2)))

    # Padding in front of a row belongs to no segment, since those are counted from 1.
    inside = before(batch.segment_ids) == batch.segment_ids
    begins = batch.loss_mask & inside & (before(batch.turn_ids) != batch.turn_ids)
    states = jnp.where(begins[..., None], before(hidden).astype(jnp.float32), 0.0)
    where = (
        masking.everywhere(jnp.maximum(batch.trajectory_ids, 0)),
        masking.everywhere(jnp.maximum(batch.turn_ids, 0)),
    )
    total = jnp.zeros((trajectories, turns, hidden.shape[-1]), jnp.float32)
    return jax.lax.stop_gradient(total.at[where].add(masking.everywhere(states)))


def last_turn_means(logprobs: jax.Array, batch: TokenBatch, *, trajectories: int) -> jax.Array:
    """Mean `[trajectories]` of the log-probs `[A, B, T]` of the last turn of each trajectory.

    It is 0 for a trajectory that is not in the batch.
    """
    ids = masking.everywhere(jnp.maximum(batch.trajectory_ids, 0))
    turns = masking.everywhere(jnp.where(batch.loss_mask, batch.turn_ids, -1))
    last = jnp.full(trajectories, -1).at[ids].max(turns)
    counted = (turns >= 0) & (turns == last[ids])
    values = jnp.where(counted, masking.everywhere(logprobs), 0.0)
    total = jnp.zeros(trajectories, jnp.float32).at[ids].add(values)
    count = jnp.zeros(trajectories, jnp.float32).at[ids].add(counted.astype(jnp.float32))
    return total / jnp.maximum(count, 1.0)


class AnswerSequences(NamedTuple):
    """Sequences that end with gold answers, and their places in the trajectories."""

    sequences: list[Trajectory]  # of one turn, the answer itself; none is there twice
    index: np.ndarray  # [M, 1 + K] int32, sequence before the first and after each turn; -1: none


def answer_sequences(
    trajectories: Sequence[Trajectory],
    answer_tokens: AnswerTokens,
    *,
    max_turns: int,
    row_tokens: int,
) -> AnswerSequences:
    """The sequences whose log-probs are `answer_facts`.

    The gold answer follows the prompt, and each turn that has an observation. A turn without one
    ends its dialogue, and has the sequence of the turn before; so has a turn after which the answer
    does not fit into `row_tokens`. Trajectories that are not `included` have none.
    """
    sequences: list[Trajectory] = []
    numbers: dict[tuple[bytes, ...], int] = {}
    index = np.full((len(trajectories), 1 + max_turns), -1, np.int32)
    for row, trajectory in enumerate(trajectories):
        if not trajectory.included:
            continue
        gold = answer_tokens(trajectory.problem)
        context, number = trajectory.prompt, -1
        for k in range(1 + len(trajectory.turns)):
            if k:
                turn = trajectory.turns[k - 1]
                context = np.concatenate([context, turn.tokens, turn.observation])
            goes_on = k == 0 or len(trajectory.turns[k - 1].observation) > 0
            if goes_on and len(context) + len(gold.opening) + len(gold.answer) <= row_tokens:
                asked = np.concatenate([context, gold.opening])
                sequence = _answered(trajectory, asked, gold.answer)
                key = (sequence.prompt.tobytes(), gold.answer.tobytes())
                number = numbers.setdefault(key, len(sequences))
                if number == len(sequences):
                    sequences.append(sequence)
            index[row, k] = number
    return AnswerSequences(sequences, index)


def answer_facts(index: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """The facts of `OF_ANSWERS` from the scores `[sequences]` of `answer_sequences`.

    They are 0 where there is no sequence, so differences between turns are 0 as well.
    """
    values = np.append(scores, 0.0).astype(np.float32)[index]
    return {
        facts.ANSWER_LOGPROBS_BEFORE.name: values[:, 0],
        facts.ANSWER_LOGPROBS.name: values[:, 1:],
    }


def _answered(trajectory: Trajectory, context: np.ndarray, answer: np.ndarray) -> Trajectory:
    """A trajectory that answers in its only turn."""
    turn = Turn(tokens=answer, logprobs=np.zeros(len(answer), np.float32), text="")
    return Trajectory(
        problem=trajectory.problem,
        group=trajectory.group,
        sample=trajectory.sample,
        prompt=context,
        turns=(turn,),
        stop_reason=StopReason.ANSWERED,
        verdict=Verdict.RIGHT,
    )
