"""Trees of tokens that prune branches which say the same (LATR, arXiv 2510.24302)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gtpo_jax.maths import checks
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.types import Candidates, Problem, Request, Trajectory, Turn

SECOND, GAP, DISTANCE, STEPS = 0.25, 0.15, 0.4, (20, 30, 50)
"""The settings that the authors' code begins with."""


def forks_here(first: np.ndarray, second: np.ndarray, *, least: float, gap: float) -> np.ndarray:
    """`p2 > least and p1 − p2 < gap`, elementwise."""
    return (second > least) & (first - second < gap)


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """The least number of insertions, deletions and replacements between two texts."""
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            before, row[j] = row[j], min(before + (one != other), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def says_the_same(
    branch: np.ndarray, parent: np.ndarray, *, steps: Sequence[int], distance: float
) -> bool:
    """True if `edit_distance / r < distance` between the first r tokens of both, for some r of
    `steps` that neither ends before.
    """
    return any(
        edit_distance(branch[:r].tolist(), parent[:r].tolist()) / r < distance
        for r in steps
        if r < min(len(branch), len(parent))
    )


class Place(NamedTuple):
    """A token of a trajectory."""

    turn: int
    token: int


class Fork(NamedTuple):
    """A branch that may be taken: the second token at a place of a trajectory."""

    time: int  # tokens that the policy wrote before it
    owner: int  # number of the trajectory
    place: Place


def forks(
    trajectory: Trajectory, owner: int, birth: Place, *, least: float, gap: float
) -> list[Fork]:
    """The places from `birth` on where the likeliest token was taken and the second is close."""
    found, time = [], 0
    for k, turn in enumerate(trajectory.turns):
        if turn.candidates is not None and k >= birth.turn:
            chances = np.exp(np.asarray(turn.candidates.logprobs[:, :2], np.float64))
            close = forks_here(chances[:, 0], chances[:, 1], least=least, gap=gap)
            close &= turn.candidates.ids[:, 0] == turn.tokens
            for token in np.flatnonzero(close).tolist():
                if token >= turn.given and (k, token) >= birth:
                    found.append(Fork(time + token, owner, Place(k, token)))
        time += len(turn.tokens)
    return found


def taken(trajectory: Trajectory, place: Place) -> tuple[tuple[Turn, ...], Turn]:
    """The turns before a place, and the beginning of its turn with the second token there."""
    turn, count = trajectory.turns[place.turn], place.token + 1
    assert turn.candidates is not None
    second = [float(values[place.token, 1]) for values in turn.candidates]

    def cut(values: np.ndarray, last: float | None = None) -> np.ndarray:
        values = np.array(values[:count])
        if last is not None and len(values) == count:
            values[-1] = last
        return values

    begun = dataclasses.replace(
        turn,
        tokens=cut(turn.tokens, second[0]),
        logprobs=cut(turn.logprobs, second[1]),
        sampled_logprobs=cut(turn.sampled_logprobs, 0.0),
        entropies=cut(turn.entropies),
        candidates=Candidates(*map(cut, turn.candidates)),
        observation=np.zeros(0, np.int32),
        results=(),
        codes=(),
        violation=None,
        text="",
    )
    return trajectory.turns[: place.turn], begun


def written_from(trajectory: Trajectory, place: Place) -> np.ndarray:
    """The tokens of the policy from a place on."""
    turns = [turn.tokens for turn in trajectory.turns[place.turn :]]
    return np.concatenate([*turns, np.zeros(0, np.int32)])[place.token :]


def lookahead(
    *,
    least: float = SECOND,
    gap: float = GAP,
    steps: Sequence[int] = STEPS,
    distance: float = DISTANCE,
    temperature: float = 0.0,
    tries: int = 2,
) -> Plan:
    """A trajectory, and branches at its close decisions, up to `size` trajectories.

    A branch takes the second likeliest token where `forks_here`, goes on at `temperature`, may
    branch itself, and is dropped if it `says_the_same` as its parent. The earliest decisions come
    first, as many as the size has room for; dropped branches make room for later ones, until
    `tries · size` have been taken. The rest of the size is filled with samples of the prompt.
    """
    checks.check_range("least", least, 0.0, 1.0, hint="0.25 is the paper's")
    checks.check_range("gap", gap, 0.0, 1.0, hint="0.15 is the paper's")
    checks.check_range("distance", distance, 0.0, 1.0, hint="0.4 is the paper's, 0 drops nothing")
    checks.check_range("temperature", temperature, 0.0, float("inf"), hint="0 is greedy")
    checks.check_positive("tries", tries, hint="it bounds the branches that are tried")

    def episodes(problem: Problem, group: int, size: int) -> Episodes:
        def ask(sample: int, **fields: object) -> Request:
            return Request(problem=problem, group=group, sample=sample, **fields)  # type: ignore

        members = [*(yield [ask(0, temperature=temperature)])]
        open_forks = forks(members[0], 0, Place(0, 0), least=least, gap=gap)
        asked = 0
        while open_forks and len(members) < size and asked < tries * size:
            room = min(size - len(members), tries * size - asked)
            chosen, open_forks = sorted(open_forks)[:room], sorted(open_forks)[room:]
            requests = []
            for fork in chosen:
                turns, begun = taken(members[fork.owner], fork.place)
                asked += 1
                requests.append(ask(asked, turns=turns, begun=begun, temperature=temperature))
            for fork, branch in zip(chosen, (yield requests), strict=True):
                of_parent = written_from(members[fork.owner], fork.place)
                of_branch = written_from(branch, fork.place)
                if says_the_same(of_branch, of_parent, steps=steps, distance=distance):
                    continue
                birth = Place(fork.place.turn, fork.place.token + 1)
                open_forks += forks(branch, len(members), birth, least=least, gap=gap)
                members.append(branch)
        if len(members) < size:
            members += yield [ask(asked + 1 + n) for n in range(size - len(members))]
        return members

    return Plan(episodes=episodes, sampled=lambda size: (tries + 1) * size, candidates=2)
