"""Training runs as one compiled loop, many seeds at once.

    curves = learn(world, methods.gtpo(), seeds=range(128))
    curves.solved.mean(axis=0)  # success after each update

A run samples, credits and updates with the library's own functions: `methods.assign`, the method's
spread, loss and reduction; its prompts choose `groups` problems of the world, and divide
`groups · size` episodes among them (see `lab.prompting`). Plans are not simulated.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gtpo_jax.lab import agents, episodes, facts, history, prompting, samplers
from gtpo_jax.lab.policies import Params, Policy, score, table
from gtpo_jax.lab.samplers import Sampler
from gtpo_jax.lab.worlds.world import World
from gtpo_jax.methods import Method, assign
from gtpo_jax.methods.method import token_numbers
from gtpo_jax.parts.losses import with_group_share
from gtpo_jax.types import TokenBatch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The size of a run."""

    updates: int = 150
    groups: int = 8
    size: int = 8
    learning_rate: float = 0.05
    epochs: int = 1
    """Updates per step on the same episodes, on whose ratio the surrogate's clip acts."""
    staleness: int = 0
    """Steps by which the policy that samples is older than the one that is trained."""
    noise: float = 0.0
    """Standard deviation, in nats, of the noise on the logits of the policy that samples."""
    noise_lasts: int = 1
    """Versions of the parameters for which the noise stays the same, as the error of rounding does
    until parameters have moved; 0: it is new for each draw."""
    sign: float = 1.0
    """−1 turns the advantages around: a control that must not learn."""


class Curves(NamedTuple):
    """Means over the episodes of each step, before its update; arrays `[seeds, updates]`.

    `learned` is the success of the policy that is trained: of as many episodes of its own where
    another one samples, or where the method chooses its problems: then of problems as the world
    gives them. Otherwise it is the same as `solved`.
    """

    solved: jax.Array  # truly right
    learned: jax.Array  # truly right, episodes of the policy that is trained
    success: jax.Array  # right by the verdict, which may be wrong
    turns: jax.Array
    tokens: jax.Array
    violations: jax.Array  # per episode
    entropy: jax.Array  # nats per token
    first_turn_of_right: jax.Array
    """Mean advantage of the first turn of successes of several turns; 0 if there are none."""
    pushed_down: jax.Array  # share of those whose first turn has a negative advantage


class Carry(NamedTuple):
    """A run between two updates."""

    params: Params
    optimizer: optax.OptState
    credit: Any
    kept: Params | None = None  # the last versions of the parameters, where an old one samples
    prompts: Any = ()


def learn(
    world: World,
    method: Method,
    *,
    seeds: Sequence[int],
    settings: Settings | None = None,
    policy: Policy | None = None,
) -> Curves:
    """Trains a policy in a world once for each seed.

    Raises `ValueError` if the world does not provide a fact that the method needs.
    """
    run = make_run(world, method, settings or Settings(), policy or table())
    return run(jnp.asarray(list(seeds), jnp.int32))


def sweep(
    world: World,
    method: Method,
    points: Sequence[Settings],
    *,
    seeds: Sequence[int],
    policy: Policy | None = None,
) -> Curves:
    """Trains at several settings in one program; arrays `[points, seeds, updates]`.

    The points may differ in `SWEPT`. Raises `ValueError` if they differ in anything else, or if
    only some of them have noise that is new for each draw.
    """
    rest = {name: 0 for name in SWEPT if name != "noise_lasts"}
    same = {dataclasses.replace(x, noise_lasts=min(x.noise_lasts, 1), **rest) for x in points}
    if len(same) != 1:
        raise ValueError(
            f"the points of a sweep may differ in {', '.join(SWEPT)}, and noise_lasts is 0 in all"
            " or none; sweep others one after the other"
        )
    swept = [jnp.array([getattr(x, name) for x in points]) for name in SWEPT]
    if not points[0].noise_lasts:
        swept = swept[:-1]
    versions = max(x.staleness for x in points) + 1

    def at(*values: jax.Array) -> Callable[[jax.Array], Curves]:
        settings = dataclasses.replace(points[0], **dict(zip(SWEPT, values, strict=False)))
        return functools.partial(_run, world, method, settings, policy or table(), versions)

    run = jax.vmap(lambda *values: jax.vmap(at(*values))(jnp.asarray(list(seeds), jnp.int32)))
    return jax.jit(run)(*swept)


SWEPT = ("learning_rate", "staleness", "noise", "noise_lasts")
"""Settings in which the points of a sweep may differ."""


def make_run(world: World, method: Method, settings: Settings, policy: Policy) -> Any:
    """The compiled function `seeds [S] → Curves`."""
    versions = settings.staleness + 1 if settings.staleness or settings.noise else 0
    one = functools.partial(_run, world, method, settings, policy, versions)
    return jax.jit(jax.vmap(one))


def _run(
    world: World,
    method: Method,
    settings: Settings,
    policy: Policy,
    versions: int,
    seed: jax.Array,
) -> Curves:
    """One run; `versions` of the parameters are kept, 0 if the policy that is trained samples."""
    init_key, key = jax.random.split(jax.random.key(seed))
    # `split` has taken the first numbers of the seed's key.
    noise_key = jax.random.fold_in(jax.random.key(seed), 2)
    first = policy.init(world, init_key)
    optimizer = optax.adam(settings.learning_rate)
    kept = samplers.begin(first, versions) if versions else None
    begun = Carry(
        first,
        optimizer.init(first),
        method.credit.init(),
        kept,
        method.prompts.init(len(world.problems)),
    )

    def step(carry: Carry, number: jax.Array) -> tuple[Carry, Curves]:
        step_key = jax.random.fold_in(key, number)
        if carry.kept is not None:
            carry = carry._replace(kept=samplers.keep(carry.kept, carry.params, number))
        sampler = sampler_of(world, settings, carry, noise_key, number)
        credited, measured = run_step(
            world, method, settings, policy, carry, sampler, first, step_key, number
        )
        params, state = carry.params, carry.optimizer
        for _ in range(settings.epochs):
            gradient = jax.grad(loss_of)(params, method, policy, credited)
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return Carry(params, state, credited.state, carry.kept, credited.prompts), measured

    return jax.lax.scan(step, begun, jnp.arange(settings.updates))[1]


def sampler_of(
    world: World, settings: Settings, carry: Carry, key: jax.Array, number: jax.Array
) -> Sampler:
    """The policy that samples the episodes of a step."""
    if carry.kept is None:
        return Sampler(carry.params, number)
    age = number - settings.staleness
    version = jnp.maximum(age, 0)
    lasts, scale = settings.noise_lasts, settings.noise
    if isinstance(lasts, int) and lasts == 0:
        episodes = settings.groups * settings.size
        key = jax.random.fold_in(key, number)
        noise = samplers.noise_of_draws(world, scale, key, episodes=episodes)
    else:
        noise = samplers.noise_of(world, scale, key, lasts=lasts, version=version)
    return Sampler(samplers.of_version(carry.kept, age), version, noise)


class Credited(NamedTuple):
    """Episodes with the advantages of a method."""

    batch: TokenBatch
    observations: jax.Array  # [M, T] int32
    advantages: jax.Array  # [M, K], of turns
    state: Any  # new state of the credit
    context: facts.Context
    prompts: Any = ()  # new state of the prompts


def run_step(
    world: World,
    method: Method,
    settings: Settings,
    policy: Policy,
    carry: Carry,
    sampler: Sampler,
    first: Params,
    key: jax.Array,
    number: jax.Array,
) -> tuple[Credited, Curves]:
    """The episodes of a step, credited, and its measures."""
    problem_key, episode_key = jax.random.split(key)
    chosen = prompting.choose(
        world,
        method.prompts,
        carry.prompts,
        problem_key,
        number,
        groups=settings.groups,
        size=settings.size,
    )
    sampled = history.sample(
        world, policy, sampler.params, episode_key, chosen.problems, noise=sampler.noise
    )
    rows = agents.split(world, sampled)
    context = samplers.make_context(
        world,
        policy,
        sampler,
        rows,
        number,
        learner=carry.params,
        first=first,
        candidates=method.loss.candidates,
    )
    credited = credit(method, context, jnp.tile(chosen.group_ids, world.rows), carry.credit)
    signed = dataclasses.replace(
        credited.batch, token_advantages=settings.sign * credited.batch.token_advantages
    )
    measured = measure(sampled, credited)
    if carry.kept is not None or method.prompts.pooled:
        # `split` has taken the first numbers of the step's key.
        own_key = jax.random.fold_in(key, 2)
        problems = chosen.problems
        if method.prompts.pooled:
            drawn_key = jax.random.fold_in(key, 3)
            problems = prompting.draw_problems(world, drawn_key, len(problems))
        own = history.sample(world, policy, carry.params, own_key, problems)
        learned = jnp.mean(own.judgment.solved, dtype=measured.solved.dtype)
        measured = measured._replace(learned=learned)
    after = method.prompts.observe(
        carry.prompts, prompting.outcomes_of(world, method.prompts, chosen, sampled)
    )
    return credited._replace(batch=signed, prompts=after), measured


def credit(method: Method, context: facts.Context, group_ids: jax.Array, state: Any) -> Credited:
    """The advantages of a method for episodes, spread over their tokens; no gradient."""
    batch = episodes.episode_batch(context, group_ids, method.facts)
    state, turn_credit = assign(method, state, batch)
    advantages, marks = token_numbers(
        method, turn_credit.advantages, episodes.written(context), batch
    )
    learned = batch.included & ~episodes.left_out(context, method.prompts.left_out)
    tokens = episodes.token_batch(context, learned, advantages)
    shape = tokens.tokens.shape
    tokens = dataclasses.replace(
        tokens,
        group_ids=jnp.broadcast_to(batch.group_ids[:, None], shape),
        successes=jnp.broadcast_to(batch.success[:, None], shape),
        marks={name: jnp.where(tokens.loss_mask, x, 0.0) for name, x in marks.items()},
    )
    return Credited(
        batch=jax.lax.stop_gradient(tokens),
        observations=context.history.observations,
        advantages=turn_credit.advantages,
        state=state,
        context=context,
    )


def loss_of(params: Params, method: Method, policy: Policy, credited: Credited) -> jax.Array:
    """The loss that an update descends."""
    found = credited.batch.candidates
    scores = score(
        policy,
        params,
        credited.observations,
        credited.batch.tokens,
        needs=method.loss.needs,
        candidates=None if found is None else found.ids,
    )
    batch = with_group_share(
        method.loss,
        method.reduce,
        scores.logprobs,
        credited.batch,
        trajectories=len(credited.batch.tokens),
    )
    return method.reduce(method.loss(scores, batch)[0], batch).mean()


def first_turns_of_right(credited: Credited) -> tuple[jax.Array, jax.Array]:
    """Two arrays `[M]`: true for successes of several turns, and advantages of first turns."""
    judged = credited.context.history.judgment
    several = facts.count_turns(credited.context) > 1
    return judged.success & judged.included & several, credited.advantages[:, 0]


def measure(sampled: history.History, credited: Credited) -> Curves:
    """The measures of one step; `sampled` are its episodes before they are split by agents."""
    judged, alive = sampled.judgment, sampled.alive
    context = credited.context
    right, firsts = first_turns_of_right(credited)

    def mean(values: jax.Array) -> jax.Array:
        return jnp.mean(values, dtype=jnp.result_type(float))

    def over_right(values: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(right, values, 0.0)) / jnp.maximum(jnp.sum(right), 1)

    written = context.history.alive
    entropies = jnp.where(written, context.scored.entropies, 0.0)
    return Curves(
        solved=mean(judged.solved),
        learned=mean(judged.solved),
        success=mean(judged.success & judged.included),
        turns=mean(jnp.max(sampled.turn_ids, axis=1) + 1),
        tokens=mean(jnp.sum(alive, axis=1)),
        violations=mean(jnp.sum(sampled.events.violation & alive, axis=1)),
        entropy=jnp.sum(entropies) / jnp.maximum(jnp.sum(written), 1),
        first_turn_of_right=over_right(firsts),
        pushed_down=over_right(firsts < 0),
    )
