"""The audit: a method's expected update beside the exact gradient of expected success.

    report = audit(worlds.chain(needed=1, turns=3), methods.rloo(), size=3)

With G episodes a group, all groups of a small world are enumerated: the expected update is
`E[u] = Σ_groups Pr(group) u(group)`, where `u = −∇ loss` of a group at the policy that sampled it.
Larger worlds are audited from sampled groups. A method that asks for the values of turns, which its
plan estimates by fresh rollouts, gets their exact expectation: its update is linear in them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from gtpo_jax.lab import agents, enumeration, history, learning, samplers
from gtpo_jax.lab.enumeration import Paths
from gtpo_jax.lab.policies import Params, Policy, table
from gtpo_jax.lab.worlds.world import World
from gtpo_jax.methods import Method
from gtpo_jax.parts.credit import TURN_VALUES

GROUPS = 100_000
"""Largest number of different groups that are enumerated."""

CHUNK = 2048
"""Groups whose updates are in memory at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """The expected update u of a group beside the gradient g of expected success."""

    success: float  # expected success
    gradient_norm: float  # |g|
    scale: float  # ⟨E u, g⟩ / ⟨g, g⟩, the length of the part of E u along g, in units of g
    cosine: float  # between E u and g
    bias: float  # |E u / scale − g| / |g|: the part of E u that is not along g
    variance: float  # E |u − E u|²
    signal_to_noise: float  # |E u|² / variance
    first_turn_of_right: float  # mean advantage of the first turn of successes of several turns
    pushed_down: float  # share of those with a negative one
    groups: int  # number of groups
    exact: bool  # all groups were enumerated; otherwise they were sampled
    error: float  # standard error of E u relative to |E u|; 0 if exact
    update: np.ndarray  # E u, flat
    gradient: np.ndarray  # g, flat


class Weighted(NamedTuple):
    """Groups of G paths, and their probabilities."""

    members: np.ndarray  # [S, G] int32, indices of paths
    weights: np.ndarray  # [S], they sum to 1


def audit(
    world: World,
    method: Method,
    *,
    size: int = 4,
    params: Params | None = None,
    policy: Policy | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> Audit:
    """Audits a method in a world, at `params` (None: the world's first policy).

    `samples`: number of sampled groups; None: all groups, which raises `ValueError` if there are
    more than `GROUPS`. Computed in float64.
    """
    with jax.enable_x64(True):
        policy = policy or table()
        if params is None:
            params = policy.init(world, jax.random.key(seed))
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        paths = enumeration.enumerate_paths(world)
        success, gradient = jax.value_and_grad(
            lambda p: enumeration.expected_success(paths, policy, p)
        )(params)
        probabilities = np.asarray(enumeration.path_probabilities(paths, policy, params))
        if samples is None:
            groups = all_groups(np.asarray(paths.history.problems), probabilities, size)
        else:
            groups = sampled_groups(world, paths, probabilities, size, samples, seed)
        return _report(
            world, method, policy, params, paths, groups, float(success), gradient, samples is None
        )


def all_groups(problems: np.ndarray, probabilities: np.ndarray, size: int) -> Weighted:
    """Every multiset of `size` paths of one problem.

    `Pr = Pr(problem)^(1 − G) · G! / Π_n c_n! · Π_n Pr(path n)^c_n`, with counts c_n; the
    probabilities of paths contain their problem's.
    """
    members, weights = [], []
    for problem in np.unique(problems):
        own = np.flatnonzero((problems == problem) & (probabilities > 0))
        if math.comb(len(own) + size - 1, size) > GROUPS:
            raise ValueError(
                f"{len(own)} paths make more than {GROUPS} groups of {size}; make the world or the"
                " group smaller, or audit from samples"
            )
        share = probabilities[own].sum()
        for chosen in itertools.combinations_with_replacement(own.tolist(), size):
            orders = math.factorial(size)
            for _, same in itertools.groupby(chosen):
                orders //= math.factorial(len(list(same)))
            members.append(chosen)
            weights.append(orders * math.prod(probabilities[list(chosen)]) / share ** (size - 1))
    return Weighted(np.array(members, np.int32), np.array(weights))


def sampled_groups(
    world: World, paths: Paths, probabilities: np.ndarray, size: int, samples: int, seed: int
) -> Weighted:
    """Groups drawn at random: a problem each, then paths of the problem."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(world.problems), samples, p=np.array(world.problems))
    problems = np.asarray(paths.history.problems)
    members = np.zeros((samples, size), np.int32)
    for problem in np.unique(drawn):
        own = np.flatnonzero(problems == problem)
        chance = probabilities[own] / probabilities[own].sum()
        rows = np.flatnonzero(drawn == problem)
        members[rows] = rng.choice(own, (len(rows), size), p=chance)
    return Weighted(members, np.full(samples, 1.0 / samples))


def _report(
    world: World,
    method: Method,
    policy: Policy,
    params: Params,
    paths: Paths,
    groups: Weighted,
    success: float,
    gradient: Any,
    exact: bool,
) -> Audit:
    known = {}
    if TURN_VALUES in method.facts and world.rows == 1:
        chances = np.asarray(enumeration.path_probabilities(paths, policy, params))
        values = enumeration.turn_values(paths, chances, world.turns)
        known[TURN_VALUES.name] = jnp.asarray(values)
    update = jax.jit(
        jax.vmap(
            functools.partial(group_update, world, method, policy, params, paths.history, known)
        )
    )
    parts = [
        jax.device_get(update(jnp.asarray(groups.members[at : at + CHUNK])))
        for at in range(0, len(groups.members), CHUNK)
    ]
    updates, firsts, negatives, rights = (np.concatenate(x) for x in zip(*parts, strict=True))
    weights = groups.weights
    flat = np.asarray(jax.flatten_util.ravel_pytree(gradient)[0])
    mean = weights @ updates
    spread = float(weights @ np.sum((updates - mean) ** 2, axis=1))
    norm, length = float(np.linalg.norm(flat)), float(np.linalg.norm(mean))
    along = float(mean @ flat)
    scale = along / max(norm**2, 1e-300)
    right = max(float(weights @ rights), 1e-300)
    return Audit(
        success=success,
        gradient_norm=norm,
        scale=scale,
        cosine=along / max(norm * length, 1e-300),
        bias=float(np.linalg.norm(mean / scale - flat)) / norm if scale and norm else math.inf,
        variance=spread,
        signal_to_noise=length**2 / max(spread, 1e-300),
        first_turn_of_right=float(weights @ firsts) / right,
        pushed_down=float(weights @ negatives) / right,
        groups=len(weights),
        exact=exact,
        error=0.0 if exact else math.sqrt(spread / len(weights)) / max(length, 1e-300),
        update=mean,
        gradient=flat,
    )


def group_update(
    world: World,
    method: Method,
    policy: Policy,
    params: Params,
    all_paths: history.History,
    known: Mapping[str, jax.Array],
    members: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The update of the group of these paths, flat; over its successes of several turns the sum of
    the advantages of first turns, the number of negative ones, and their number.

    `known`: facts of all paths that neither the world nor the laboratory makes.
    """
    sampled = jax.tree.map(lambda x: x[members], all_paths)
    rows = agents.split(world, sampled)
    zero = jnp.zeros((), jnp.int32)
    context = samplers.make_context(
        world,
        policy,
        samplers.Sampler(params, zero),
        rows,
        zero,
        learner=params,
        first=params,
        candidates=method.loss.candidates,
    )
    context = context._replace(known={name: values[members] for name, values in known.items()})
    group_ids = jnp.zeros(len(rows.problems), jnp.int32)
    credited = learning.credit(method, context, group_ids, method.credit.init())
    loss_gradient = jax.grad(learning.loss_of)(params, method, policy, credited)
    right, firsts = learning.first_turns_of_right(credited)
    return (
        -jax.flatten_util.ravel_pytree(loss_gradient)[0],
        jnp.sum(jnp.where(right, firsts, 0.0)),
        jnp.sum(right & (firsts < 0)),
        jnp.sum(right),
    )
