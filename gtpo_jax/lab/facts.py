"""Facts that the laboratory makes for the episodes of every world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gtpo_jax.lab.history import History
from gtpo_jax.lab.worlds.world import World
from gtpo_jax.maths import draws
from gtpo_jax.parts.facts import Code
from gtpo_jax.parts.losses import Scores
from gtpo_jax.types import Candidates


class Context(NamedTuple):
    """All that facts are computed from."""

    world: World
    history: History
    turns: jax.Array  # [M, T, K] bool, token t belongs to turn k
    first: jax.Array  # [M, T, K] bool, token t is the first of turn k
    last: jax.Array  # [M, T, K] bool, token t is the last of turn k
    scored: Scores  # under the policy that sampled
    reference: Scores  # under the policy that training began with
    step: jax.Array  # [] int32, number of the update
    version: jax.Array  # [] int32, of the policy that sampled
    proximal: Scores  # under the policy that the step begins with
    candidates: Candidates | None  # [M, T, K], recorded by the sampler
    known: Mapping[str, jax.Array] = {}  # further facts by name, such as those of a plan


def make_context(
    world: World,
    history: History,
    scored: Scores,
    reference: Scores,
    step: jax.Array,
    *,
    version: jax.Array | None = None,
    proximal: Scores | None = None,
    candidates: Candidates | None = None,
) -> Context:
    """The context of the facts of a history.

    Without a `version` and `proximal` scores, the policy that sampled is the one that the step
    begins with.
    """
    ids = history.turn_ids[..., None]
    turns = ids == jnp.arange(world.turns)
    after = jnp.pad(turns[:, 1:], ((0, 0), (0, 1), (0, 0)))
    before = jnp.pad(turns[:, :-1], ((0, 0), (1, 0), (0, 0)))
    return Context(
        world=world,
        history=history,
        turns=turns,
        first=turns & ~before,
        last=turns & ~after,
        scored=scored,
        reference=reference,
        step=step,
        version=step if version is None else version,
        proximal=scored if proximal is None else proximal,
        candidates=candidates,
    )


def sums_of_turns(context: Context, values: jax.Array) -> jax.Array:
    """Sums `[M, K]` over the tokens of each turn."""
    return jnp.sum(jnp.where(context.turns, values[..., None], 0), axis=1)


def at_tokens(places: jax.Array, values: jax.Array) -> jax.Array:
    """The values `[M, K]` at one token of each turn."""
    return jnp.sum(jnp.where(places, values[..., None], 0), axis=1)


def count_tokens(context: Context) -> jax.Array:
    return jnp.sum(context.turns, axis=1, dtype=jnp.int32)


def means_of_turns(context: Context, values: jax.Array) -> jax.Array:
    return sums_of_turns(context, values) / jnp.maximum(count_tokens(context), 1)


def count_turns(context: Context) -> jax.Array:
    """The number of turns `[M]`."""
    return jnp.sum(jnp.any(context.turns, axis=1), axis=1)


def _ended(context: Context) -> jax.Array:
    """True for an episode that its policy ended."""
    return jnp.any(context.history.events.done & context.history.alive, axis=1)


def _actions(context: Context) -> jax.Array:
    """An id of the tokens of each turn."""
    place = jnp.cumsum(context.turns, axis=1, dtype=jnp.int32)
    digits = (context.history.actions[..., None] + 1) * (
        jnp.int32(context.world.actions + 1) ** jnp.minimum(place - 1, 8)
    )
    return jnp.sum(jnp.where(context.turns, digits, 0), axis=1).astype(jnp.int32)


def _contexts(context: Context) -> jax.Array:
    """An id of the problem and of all that was seen and done before each turn."""
    history = context.history

    def step(before: jax.Array, here: tuple) -> tuple[jax.Array, jax.Array]:
        seen = draws.mixed(before, here[0])
        return draws.mixed(seen, here[1]), seen

    first = history.problems.astype(jnp.uint32)
    columns = (history.observations.T, history.actions.T)
    ids = jax.lax.scan(step, first, columns)[1].T & 0x7FFFFFFF
    return at_tokens(context.first, ids.astype(jnp.int32))


def _answers(context: Context) -> jax.Array:
    """The id of the last turn of an episode that ended by itself, else −1."""
    turn = jnp.max(context.history.turn_ids, axis=1)
    ids = jnp.take_along_axis(_actions(context), jnp.maximum(turn, 0)[:, None], axis=1)[:, 0]
    return jnp.where(_ended(context), ids, -1)


def _code(context: Context) -> Code:
    alive = context.history.alive
    values = jnp.where(alive, context.history.actions + 1, 0).astype(jnp.int32)
    return Code(values, jnp.sum(alive, axis=1, dtype=jnp.int32))


def _reference_answers(context: Context) -> jax.Array:
    turn = jnp.maximum(jnp.max(context.history.turn_ids, axis=1), 0)
    means = means_of_turns(context, context.reference.logprobs)
    return jnp.take_along_axis(means, turn[:, None], axis=1)[:, 0]


def _states(context: Context) -> jax.Array:
    """The observation before each turn, `[M, K, O]`, as a vector of zeros and a one."""
    seen = at_tokens(context.first, context.history.observations)
    return jax.nn.one_hot(seen, context.world.observations)


def _diversity(context: Context) -> jax.Array:
    """The share of different tokens among those of an episode, as all eight scores."""
    history = context.history
    tokens = jax.nn.one_hot(history.actions, context.world.actions) * history.alive[..., None]
    different = jnp.sum(jnp.any(tokens > 0, axis=1), axis=1)
    share = different / jnp.maximum(jnp.sum(history.alive, axis=1), 1)
    return jnp.broadcast_to(share[:, None], (len(share), 8))


def _last_text(context: Context) -> jax.Array:
    """Counts `[M, 2, A²]` of the tokens of the last turn, and of its pairs of tokens."""
    history, size = context.history, context.world.actions
    last = jnp.max(history.turn_ids, axis=1, keepdims=True)
    here = history.alive & (history.turn_ids == last)
    pairs = jnp.pad(here[:, 1:] & here[:, :-1], ((0, 0), (0, 1)))
    following = jnp.roll(history.actions, -1, axis=1)
    single = jax.nn.one_hot(history.actions, size**2) * here[..., None]
    double = jax.nn.one_hot(history.actions * size + following, size**2) * pairs[..., None]
    return jnp.stack([jnp.sum(single, axis=1), jnp.sum(double, axis=1)], axis=1)


def _scores(context: Context) -> jax.Array:
    """Two aspects `[M, 2]`: success, and the share of turns that were not used."""
    used = count_turns(context) / context.world.turns
    return jnp.stack([context.history.judgment.success.astype(used.dtype), 1.0 - used], axis=1)


def _progress(context: Context) -> jax.Array:
    return at_tokens(context.last, context.history.events.facts["progress"])


def _last_progress(context: Context) -> jax.Array:
    last = jnp.maximum(count_turns(context) - 1, 0)
    return jnp.take_along_axis(_progress(context), last[:, None], axis=1)[:, 0]


def _preferences(context: Context) -> jax.Array:
    """One half, plus half of the progress that the turn made."""
    scores = _progress(context)
    before = jnp.pad(scores[:, :-1], ((0, 0), (1, 0)))
    return jnp.clip(0.5 + 0.5 * (scores - before), 0.0, 1.0)


def _judge(context: Context) -> jax.Array:
    """The last score, on the last turn."""
    place = jnp.arange(context.world.turns) == (count_turns(context) - 1)[:, None]
    return jnp.where(place, _last_progress(context)[:, None], 0.0)


def _token_likeness(context: Context, group_ids: jax.Array) -> jax.Array:
    """`Σ_k (err_k · err_t) (h_k · h_t)` over the tokens k of the successes of the group, `[M, T]`.

    h is a zero for each observation, and a one, as the table of logits has it: only tokens at the
    same observation have a product, and those share a distribution p. So it is
    `n[y] − Σ_k p(y_k) − n p(y) + n Σ p²`, with n of such tokens k, of which n[y] are the token y.
    """
    history, world = context.history, context.world
    judged = history.judgment
    counted = (history.alive & (judged.success & judged.included)[:, None]).astype(jnp.int32)
    chances = jnp.exp(context.proximal.logprobs)
    squares = context.proximal.extras["collisions"][..., 0]
    place = (jnp.broadcast_to(group_ids[:, None], counted.shape), history.observations)
    shape = (len(group_ids), world.observations)
    numbers = jnp.zeros((*shape, world.actions), jnp.int32)
    numbers = numbers.at[(*place, history.actions)].add(counted)[place]
    total = jnp.sum(numbers, axis=-1)
    expected = jnp.zeros(shape, chances.dtype).at[place].add(counted * chances)[place]
    same = jnp.take_along_axis(numbers, history.actions[..., None], axis=-1)[..., 0]
    return jnp.where(history.alive, same - expected - total * (chances - squares), 0.0)


OF_GROUPS: dict[str, Callable[[Context, jax.Array], Any]] = {"token_likeness": _token_likeness}
"""Name → facts made from the groups `[M]` as well."""

FACTS: dict[str, Callable[[Context], Any]] = {
    "calls": lambda c: sums_of_turns(c, c.history.events.calls).astype(jnp.int32),
    "call_errors": lambda c: sums_of_turns(c, c.history.events.call_errors).astype(jnp.int32),
    "turn_tokens": count_tokens,
    "response_tokens": lambda c: jnp.sum(c.history.alive, axis=1, dtype=jnp.int32),
    "turn_entropies": lambda c: means_of_turns(c, c.scored.entropies),
    "turn_logprobs": lambda c: means_of_turns(c, c.scored.logprobs),
    "anchors": lambda c: at_tokens(c.first, c.history.observations).astype(jnp.int32),
    "actions": _actions,
    "contexts": _contexts,
    "answers": _answers,
    "problems": lambda c: c.history.problems,
    "versions": lambda c: jnp.broadcast_to(c.version, c.turns[:, 0].shape),
    "step": lambda c: jnp.broadcast_to(c.step, c.history.problems.shape),
    "code": _code,
    "policy_states": lambda c: jnp.sum(_states(c) * jnp.any(c.turns, 1)[..., None], axis=1),
    "turn_states": _states,
    "reference_answer_logprobs": _reference_answers,
    "cut_off": lambda c: ~_ended(c),
    "answer_turns": lambda c: jnp.any(c.turns, axis=1),
    "diversity": _diversity,
    "families": lambda c: c.history.problems,
    "last_text": _last_text,
    "scores": _scores,
}
"""Name → facts that the laboratory makes for every world; worlds add theirs."""

FROM_PROGRESS: dict[str, Callable[[Context], Any]] = {
    "prefix_preferences": _preferences,
    "demonstration_distance": lambda c: 1.0 - _last_progress(c),
    "demonstration_gap": lambda c: 1.0 - _last_progress(c),
    "reward judge": _judge,
}
"""Further facts in worlds that score their states: a preference model, and distances to a
demonstration, that know the score."""
