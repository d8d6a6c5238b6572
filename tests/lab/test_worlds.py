"""Every world, by a walk over all of its states in plain Python, apart from the lab's code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.lab.worlds import WORLDS, World

SMALL: dict[str, dict[str, Any]] = {
    "agents": {"needed": 1, "turns": 4},
    "chain": {"needed": 1, "turns": 3},
    "difficulty": {"priors": (0.9, 0.1), "branching": 2},
    "entities": {"count": 2, "turns": 3},
    "failing": {"needed": 1, "turns": 3},
    "fatal": {"depth": 3},
    "irrelevant": {"depth": 2, "branching": 2, "turns": 3},
    "lengths": {"stages": 2, "longest": 3, "needed": 1, "turns": 2},
    "many": {"problems": 3, "branching": 2},
    "misleading": {"length": 3},
    "noisy": {"needed": 1, "turns": 3},
    "plans": {"qualities": (0.9, 0.2)},
    "recoverable": {"needed": 1, "turns": 3},
    "recurring": {"width": 2, "turns": 3, "slip": 0.1},
    "resembling": {"length": 2, "branching": 3, "turns": 3},
    "stopping": {"turns": 4},
    "styles": {"ways": 2},
    "verification": {"rights": (0.3, 0.9), "turns": 3},
}
"""Knobs under which all paths of a world can be listed."""

BEST: dict[str, Callable[[int], int]] = {
    "agents": lambda o: 2 if o == 6 else 0,
    "chain": lambda o: 2 if o == 4 else 0,
    "difficulty": lambda o: (o // 3 + o % 3) % 4,
    "entities": lambda o: next(i for i in range(4) if i == 3 or not o >> i & 1),
    "failing": lambda o: 2 if o == 2 else 0,
    "fatal": lambda o: o % 2,
    "irrelevant": lambda o: o // 2 % 3,
    "lengths": lambda o: int(o // 4 % 2 == 0 and o % 4 < 2),
    "many": lambda o: (o // 3 + o % 3) % 4,
    "misleading": lambda o: o // 2 % 2,
    "noisy": lambda o: 2 if o == 2 else 0,
    "plans": lambda o: 0 if o == 0 else ((o - 1) // 3 + (o - 1) % 3) % 3,
    "recoverable": lambda o: 2 if o == 4 else o % 2,
    "recurring": lambda o: int(o >= 6),
    "resembling": lambda o: o % 5,
    "stopping": lambda o: 0,
    "styles": lambda o: 0,
    "verification": lambda o: 0 if o == 3 else 1,
}
"""The best action for each observation, at default knobs."""

BATCH = 64
"""States that are stepped at a time, so that a world is compiled once."""


class Table(NamedTuple):
    """All states that can be reached, numbered, and all that follows from each."""

    begin: list[int]  # state of each problem
    observations: list[int]
    after: list[list[list[int]]]  # [state][action][chance] → state
    ends: list[list[list[tuple[bool, bool]]]]  # … → the turn ends, the episode ends
    judged: list[list[tuple[bool, bool, bool]]]  # [state][verdict] → success, solved, included
    shapes_stay: bool
    names: set[frozenset[str]]  # of the facts of turns


def tabulate(world: World) -> Table:
    """The transitions of a world by breadth-first search."""

    def all_of(state):
        step = jax.vmap(jax.vmap(world.step, (None, None, 0)), (None, 0, None))
        after, event = step(state, jnp.arange(world.actions), jnp.arange(len(world.chances)))
        judge = jax.vmap(world.judge, (None, 0))(state, jnp.arange(len(world.verdicts)))
        return world.observe(state), after, event, judge

    look = jax.jit(jax.vmap(all_of))
    first = jax.vmap(world.reset)(jnp.arange(len(world.problems)))
    structure = jax.tree.structure(first)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(first)]
    numbers: dict[tuple, int] = {}

    def number(values: tuple) -> int:
        return numbers.setdefault(values, len(numbers))

    begin = [number(tuple(leaf[p].item() for leaf in leaves)) for p in range(len(world.problems))]
    table = Table(begin, [], [], [], [], True, set())
    stay = True
    done = 0
    while done < len(numbers):
        assert len(numbers) < 5_000, f"{world.name} has states without end"
        batch = list(numbers)[done : done + BATCH]
        padded = batch + [batch[0]] * (BATCH - len(batch))
        columns = [c.astype(leaf.dtype) for c, leaf in zip(np.array(padded).T, leaves, strict=True)]
        seen, after, event, judge = look(jax.tree.unflatten(structure, columns))
        stay &= jax.tree.structure(after) == structure
        after = [np.asarray(leaf) for leaf in jax.tree.leaves(after)]
        stay &= [leaf.dtype for leaf in after] == [leaf.dtype for leaf in leaves]
        shape = (BATCH, world.actions, len(world.chances))
        table.names.add(frozenset(event.facts))
        for values in (*event.facts.values(), *judge.facts.values()):
            assert np.all(np.isfinite(values))
        ends = [np.broadcast_to(np.asarray(x).T, shape[::-1]).T for x in (event[0], event[1])]
        verdicts = [
            np.broadcast_to(np.asarray(x).T, (len(world.verdicts), BATCH)).T for x in judge[:3]
        ]
        for i in range(len(batch)):
            table.observations.append(int(seen[i]))
            pairs = [(a, c) for a in range(shape[1]) for c in range(shape[2])]
            to = [number(tuple(leaf[i, a, c].item() for leaf in after)) for a, c in pairs]
            how = [(bool(ends[0][i, a, c]), bool(ends[1][i, a, c])) for a, c in pairs]
            width = shape[2]
            table.after.append([to[j : j + width] for j in range(0, len(to), width)])
            table.ends.append([how[j : j + width] for j in range(0, len(how), width)])
            table.judged.append(
                [tuple(bool(x[i, v]) for x in verdicts) for v in range(len(world.verdicts))]
            )
        done += len(batch)
    return table._replace(shapes_stay=stay)


class Path(NamedTuple):
    """The end of an episode."""

    probability: float
    tokens: int
    turns: int
    ended: bool  # by itself
    state: int


def paths(world: World, table: Table, policy: np.ndarray) -> Iterator[Path]:
    """Every episode under a policy `[observations, actions]`, verdicts apart."""

    def walk(p: float, tokens: int, turns: int, state: int) -> Iterator[Path]:
        for action, chosen in enumerate(policy[table.observations[state]]):
            for chance, drawn in enumerate(world.chances):
                ends_turn, done = table.ends[state][action][chance]
                now = Path(
                    p * chosen * drawn,
                    tokens + 1,
                    turns + ends_turn,
                    done,
                    table.after[state][action][chance],
                )
                if done or now.turns == world.turns or now.tokens == world.tokens:
                    yield now
                else:
                    yield from walk(now.probability, now.tokens, now.turns, now.state)

    for problem, probability in enumerate(world.problems):
        yield from walk(probability, 0, 0, table.begin[problem])


def judged(world: World, table: Table, state: int, which: int) -> float:
    """The expected success (0) or truth (1) of an episode that ends in a state."""
    return sum(p * table.judged[state][v][which] for v, p in enumerate(world.verdicts))


def forward(world: World, table: Table, policy: np.ndarray) -> float:
    """Expected success of a policy, equal states of equal age taken together."""
    level: dict[tuple[int, int], float] = {}
    for problem, probability in enumerate(world.problems):
        key = (table.begin[problem], 0)
        level[key] = level.get(key, 0.0) + probability
    total = 0.0
    for token in range(world.tokens):
        following: dict[tuple[int, int], float] = {}
        for (state, turns), p in level.items():
            for action, chosen in enumerate(policy[table.observations[state]]):
                for chance, drawn in enumerate(world.chances):
                    ends_turn, done = table.ends[state][action][chance]
                    to, turn = table.after[state][action][chance], turns + ends_turn
                    now = p * chosen * drawn
                    if done or turn == world.turns or token + 1 == world.tokens:
                        total += now * judged(world, table, to, 0)
                    elif now:
                        following[to, turn] = following.get((to, turn), 0.0) + now
        level = following
    return total


def bound(world: World, table: Table) -> float:
    """The success of the best policy that sees the whole state: no policy exceeds it."""
    memo: dict[tuple[int, int, int], float] = {}

    def value(state: int, turns: int, tokens: int) -> float:
        key = (state, turns, tokens)
        if key not in memo:
            memo[key] = max(
                sum(
                    drawn * after(state, action, chance, turns, tokens)
                    for chance, drawn in enumerate(world.chances)
                )
                for action in range(world.actions)
            )
        return memo[key]

    def after(state: int, action: int, chance: int, turns: int, tokens: int) -> float:
        ends_turn, done = table.ends[state][action][chance]
        to, turn = table.after[state][action][chance], turns + ends_turn
        if done or turn == world.turns or tokens + 1 == world.tokens:
            return judged(world, table, to, 0)
        return value(to, turn, tokens + 1)

    return sum(p * value(table.begin[problem], 0, 0) for problem, p in enumerate(world.problems))


def first_policy(world: World) -> np.ndarray:
    """Probabilities `[observations, actions]` of the policy that training begins with."""
    shape = (world.observations, world.actions)
    logits = np.zeros(shape) if world.logits is None else world.logits
    assert logits.shape == shape
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def stated(name: str) -> tuple[float, float]:
    """First and best success according to the docstring."""
    text = inspect.getdoc(WORLDS[name]) or ""
    found = re.search(r"First success ([\d.]+), best (\d?\.\d+)\.", text)
    assert found, f"{name} does not state its first and best success"
    return float(found[1]), float(found[2])


@pytest.mark.parametrize("name", WORLDS)
def test_paths_of_a_small_world(name):
    """Probabilities add up, and every episode ends in time."""
    world = WORLDS[name](**SMALL[name])
    table = tabulate(world)
    policy = first_policy(world)
    for probabilities in (world.problems, world.chances, world.verdicts):
        assert min(probabilities) > 0
        assert sum(probabilities) == pytest.approx(1.0, abs=1e-12)
    everything = list(paths(world, table, policy))
    assert sum(path.probability for path in everything) == pytest.approx(1.0, abs=1e-9)
    assert all(
        path.turns <= world.turns and (path.ended or path.turns == world.turns)
        for path in everything
    )
    assert all(0 <= seen < world.observations for seen in table.observations)
    assert table.shapes_stay
    assert len(table.names) == 1
    one_by_one = sum(p.probability * judged(world, table, p.state, 0) for p in everything)
    assert forward(world, table, policy) == pytest.approx(one_by_one, abs=1e-9)


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_states_its_first_and_its_best_success(name):
    """The best policy by hand reaches what no policy that sees the whole state exceeds."""
    world = WORLDS[name]()
    assert world.name == name
    table = tabulate(world)
    first, best = stated(name)
    assert forward(world, table, first_policy(world)) == pytest.approx(first, abs=6e-4)
    by_hand = np.eye(world.actions)[[BEST[name](o) for o in range(world.observations)]]
    assert forward(world, table, by_hand) == pytest.approx(best, abs=6e-4)
    assert bound(world, table) == pytest.approx(best, abs=6e-4)


def rollout(world: World, actions: jax.Array, chances: jax.Array) -> tuple:
    """The last state, what was seen on the way, and the judgment; the end does not stop it."""

    def step(state, drawn):
        seen = world.observe(state)
        state, event = world.step(state, *drawn)
        return state, (seen, event)

    problem = jnp.asarray(len(world.problems) - 1, jnp.int32)
    state, recorded = jax.lax.scan(step, world.reset(problem), (actions, chances))
    return state, recorded, world.judge(state, jnp.zeros((), jnp.int32))


@pytest.mark.parametrize("name", WORLDS)
def test_random_tokens_under_jit_vmap_and_scan(name):
    world = WORLDS[name](**SMALL[name])
    rng = np.random.default_rng(0)
    shape = (8, world.tokens + 3)
    actions = rng.integers(0, world.actions, shape, np.int32)
    chances = rng.integers(0, len(world.chances), shape, np.int32)
    run = jax.jit(jax.vmap(lambda a, c: rollout(world, a, c)))
    state, (seen, event), judgment = run(actions, chances)
    assert all(leaf.shape == (8,) for leaf in jax.tree.leaves(state))
    assert seen.shape == shape
    assert seen.dtype == jnp.int32
    assert 0 <= np.min(seen) <= np.max(seen) < world.observations
    for leaf in jax.tree.leaves((state, event, judgment)):
        assert np.all(np.isfinite(leaf))
        assert leaf.dtype in (jnp.int32, jnp.float32, jnp.bool_)
    progress = np.asarray(event.facts.get("progress", 0.0))
    assert 0 <= progress.min() <= progress.max() <= 1
