"""Hints in the laboratory: where a whole group fails, one row is replaced by a hinted success.

    begin = hints.after_steps(world, chain.RIGHT)
    curves = hints.learn(world, begin, methods.grpo(), seeds=range(64), levels=3)

A hint does a part of the work: an episode under a hint of level ℓ begins after the first ℓ steps of
a solution, where `begin` puts it. So it stands for the hinted prompts of
`methods.scaf_grpo`: the smallest level at which a sample succeeds replaces the first failure, and
only what the policy wrote after the hint is trained.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from gtpo_jax.lab import facts, history
from gtpo_jax.lab.learning import (
    Carry,
    Curves,
    Settings,
    credit,
    loss_of,
    measure,
)
from gtpo_jax.lab.policies import Params, Policy, score, table
from gtpo_jax.lab.prompting import draw_problems
from gtpo_jax.lab.worlds.world import State, World
from gtpo_jax.methods import Method

Begin = Callable[[jax.Array, jax.Array], State]
"""`(problem, level) → state` after the first `level` steps of a solution; `world.reset` at 0."""


def after_steps(world: World, action: int) -> Begin:
    """Hints in a world whose solution begins with one action again and again, as `chain` has."""

    def begin(problem: jax.Array, level: jax.Array) -> State:
        def further(_: jax.Array, state: State) -> State:
            return world.step(state, jnp.int32(action), jnp.int32(0))[0]

        return jax.lax.fori_loop(0, level, further, world.reset(problem))

    return begin


def sample(
    world: World,
    begin: Begin,
    policy: Policy,
    params: Params,
    key: jax.Array,
    problems: jax.Array,
    *,
    size: int,
    levels: int,
) -> tuple[history.History, history.History]:
    """Groups of `size` episodes of `problems [G]`, as they were sampled, and with hinted rows.

    Rows lie group by group.
    """
    # A problem and the level of its hint as one number, since episodes begin with a problem.
    each = jnp.concatenate([jnp.zeros(size, jnp.int32), 1 + jnp.arange(levels, dtype=jnp.int32)])
    starts = problems[:, None] * (levels + 1) + each
    started = world._replace(reset=lambda at: begin(at // (levels + 1), at % (levels + 1)))
    rows = history.sample(started, policy, params, key, starts.ravel())
    rows = rows._replace(problems=rows.problems // (levels + 1))
    groups = jax.tree.map(lambda x: x.reshape(len(problems), -1, *x.shape[1:]), rows)
    right = groups.judgment.success & groups.judgment.included
    hinted = right[:, size:] & ~jnp.any(right[:, :size], axis=1, keepdims=True)
    # The first row is replaced by that of the smallest level that succeeds.
    none = jnp.zeros((len(problems), 1), bool)  # behind the levels, so that there is one to name
    smallest = jnp.argmax(jnp.concatenate([hinted, none], axis=1), axis=1)
    chosen = jnp.where(jnp.any(hinted, axis=1), size + smallest, 0)
    places = jnp.broadcast_to(jnp.arange(size), (len(problems), size)).at[:, 0].set(chosen)
    index = jnp.arange(len(problems))[:, None]

    def flat(x: jax.Array) -> jax.Array:
        return x.reshape(-1, *x.shape[2:])

    return (
        jax.tree.map(lambda x: flat(x[:, :size]), groups),
        jax.tree.map(lambda x: flat(x[index, places]), groups),
    )


def learn(
    world: World,
    begin: Begin,
    method: Method,
    *,
    seeds: Sequence[int],
    levels: int,
    settings: Settings | None = None,
    policy: Policy | None = None,
) -> Curves:
    """Trains as `learning.learn` does, with hints of 1 to `levels`; 0 gives none.

    `solved`, `learned` and `success` are of the samples without hints, the other curves of what is
    trained. Arrays `[seeds, updates]`.
    """
    run = functools.partial(
        _run, world, begin, method, settings or Settings(), policy or table(), levels
    )
    return jax.jit(jax.vmap(run))(jnp.asarray(list(seeds), jnp.int32))


def _run(
    world: World,
    begin: Begin,
    method: Method,
    settings: Settings,
    policy: Policy,
    levels: int,
    seed: jax.Array,
) -> Curves:
    init_key, key = jax.random.split(jax.random.key(seed))
    first = policy.init(world, init_key)
    optimizer = optax.adam(settings.learning_rate)
    ids = jnp.repeat(jnp.arange(settings.groups, dtype=jnp.int32), settings.size)

    def step(carry: Carry, number: jax.Array) -> tuple[Carry, Curves]:
        problem_key, sample_key = jax.random.split(jax.random.fold_in(key, number))
        problems = draw_problems(world, problem_key, settings.groups)
        options = {"size": settings.size, "levels": levels}
        plain, rows = sample(world, begin, policy, carry.params, sample_key, problems, **options)
        seen = rows.observations, rows.actions
        context = facts.make_context(
            world, rows, score(policy, carry.params, *seen), score(policy, first, *seen), number
        )
        found = credit(method, context, ids, carry.credit)
        gradient = jax.grad(loss_of)(carry.params, method, policy, found)
        updates, state = optimizer.update(gradient, carry.optimizer, carry.params)
        params = optax.apply_updates(carry.params, updates)
        solved, success = (jnp.mean(x, dtype=float) for x in (plain.judgment[1], plain.judgment[0]))
        measured = measure(rows, found)._replace(solved=solved, learned=solved, success=success)
        return Carry(params, state, found.state), measured

    begun = Carry(first, optimizer.init(first), method.credit.init())
    return jax.lax.scan(step, begun, jnp.arange(settings.updates))[1]
