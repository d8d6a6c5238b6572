"""A method as a value: slots, each filled with parts of one signature."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from gtpo_jax.parts import credit as credits_
from gtpo_jax.parts import facts, rewards
from gtpo_jax.parts.credit.credit import Credit, State
from gtpo_jax.parts.facts import Fact
from gtpo_jax.parts.losses import Correction, Loss, PolicyTerm
from gtpo_jax.parts.plans import Plan, independent
from gtpo_jax.parts.prompts import Prompts, in_order
from gtpo_jax.parts.reductions import Reduction
from gtpo_jax.parts.rewards import Reward
from gtpo_jax.parts.spreads import Spread, Written, evenly, facts_of
from gtpo_jax.types import EpisodeBatch

INDEPENDENT = independent()
"""The plan of a method that says nothing of plans."""


class Method(NamedTuple):
    """A complete method of reinforcement learning."""

    rewards: Mapping[str, Reward]  # named parts, which are summed: episodes → [M, K]
    credit: Credit  # rewards → advantages of turns
    loss: Loss  # loss per token: a sum of terms, which name the scores they need
    reduce: Reduction  # loss per token → one number, as a weighted sum
    plan: Plan = INDEPENDENT  # which episodes a problem gets
    prompts: Prompts = in_order()  # which problems come next, which groups are kept
    spread: Spread = evenly  # advantages of turns → advantages of tokens

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Facts of trajectories that its parts read, but for those that `assign` itself passes."""
        needs = facts.union(
            *(part.facts for part in self.rewards.values()),
            self.credit.facts,
            facts_of(self.spread),
            *(mark.facts for mark in self.loss.marks),
        )
        return tuple(fact for fact in needs if fact != facts.REWARD_PARTS)


Modifier = Callable[[Method], Method]
"""A function from a method to a method; `chain` composes modifiers."""


def chain(method: Method, *modifiers: Modifier) -> Method:
    """The method with the modifiers applied from left to right."""
    return functools.reduce(lambda changed, modify: modify(changed), modifiers, method)


class TurnCredit(NamedTuple):
    """Credit of every turn, each array `[M, K]` float32."""

    rewards: jax.Array
    advantages: jax.Array
    parts: dict[str, jax.Array]  # named rewards, whose sum is `rewards`
    links: dict[str, jax.Array]  # values of the named links of the credit, such as "return"


def assign(method: Method, state: State, episodes: EpisodeBatch) -> tuple[State, TurnCredit]:
    """Rewards and advantages of every turn, and the new state of the credit. Pure and jit-able.

    `state` is the state of `method.credit`, initially `method.credit.init()`.
    """
    earned = rewards.evaluate(method.rewards, episodes)
    passed = {**episodes.facts, facts.REWARD_PARTS.name: earned.parts}
    episodes = dataclasses.replace(episodes, facts=passed)
    state, advantages, links = credits_.trace(method.credit, state, earned.total, episodes)
    return state, TurnCredit(earned.total, advantages, earned.parts, links)


def token_numbers(
    method: Method, advantages: jax.Array, written: Written, episodes: EpisodeBatch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Advantages of tokens from those of turns `[M, K]`, and the marks of tokens that the loss
    reads, each `[M, L]`. Pure and jit-able.
    """
    of_tokens = method.spread(advantages, written, episodes)
    marks = {mark.name: mark.function(of_tokens, written, episodes) for mark in method.loss.marks}
    return of_tokens, marks


def add_reward(method: Method, name: str, reward: Reward) -> Method:
    """The method with one more reward. Raises `ValueError` if the name is taken."""
    if name in method.rewards:
        raise ValueError(
            f"the method has a reward {name!r} already, beside"
            f" {', '.join(sorted(set(method.rewards) - {name})) or 'no other'}; choose another name"
        )
    return method._replace(rewards={**method.rewards, name: reward})


def wrap_reward(method: Method, name: str, change: Callable[[Reward], Reward]) -> Method:
    """The method with one of its rewards changed. Raises `ValueError` if it has no such reward."""
    if name not in method.rewards:
        raise ValueError(
            f"the modifier changes the reward {name!r}, the method has"
            f" {', '.join(method.rewards)}; choose a method that has it"
        )
    return method._replace(rewards={**method.rewards, name: change(method.rewards[name])})


def add_link(method: Method, *links: Credit) -> Method:
    """The method with further links at the end of its credit."""
    return method._replace(credit=credits_.chain(method.credit, *links))


def set_prompts(method: Method, chosen: Prompts, *, name: str) -> Method:
    """The method with another choice of problems. Which groups are kept, in how many rounds, and
    what is left out of the loss stay as they were.

    Raises `ValueError` if it chooses among problems already; `name` is the name of the modifier.
    """
    before = method.prompts
    if before.pooled:
        raise ValueError(
            f"{name} chooses problems, and the method does so already; leave one of them out, and"
            " name a division of the budget, such as knapsack, after the choice of problems"
        )
    return method._replace(
        prompts=chosen._replace(
            has_signal=before.has_signal, rounds=before.rounds, left_out=before.left_out
        )
    )


def set_plan(method: Method, plan: Plan, *, name: str) -> Method:
    """The method with a plan in the place of independent samples.

    Raises `ValueError` if it has another plan already; `name` is the name of the modifier.
    """
    if method.plan != INDEPENDENT:
        raise ValueError(
            f"{name} says which rollouts a problem gets, and so does another modifier of this"
            " method; leave one of them out"
        )
    return method._replace(plan=plan)


def change_policy_term(
    method: Method, change: Callable[[PolicyTerm], PolicyTerm], *, name: str
) -> Method:
    """The method with changed policy-gradient terms.

    Raises `ValueError` if it has none; `name` is the name of the modifier.
    """
    terms = method.loss.terms
    if not any(isinstance(term, PolicyTerm) for term in terms):
        raise ValueError(f"{name} changes a policy-gradient term, and this method's loss has none")
    changed = (change(term) if isinstance(term, PolicyTerm) else term for term in terms)
    return method._replace(loss=method.loss._replace(terms=tuple(changed)))


def correct_policy_term(method: Method, correction: Correction, *, name: str) -> Method:
    """The method with one more correction of its policy-gradient terms for the sampler, which turns
    on `recompute`. An equal one that is there already stays alone.
    """

    def change(term: PolicyTerm) -> PolicyTerm:
        others = tuple(other for other in term.corrections if other != correction)
        return dataclasses.replace(term, recompute=True, corrections=(*others, correction))

    return change_policy_term(method, change, name=name)


def change_surrogate(method: Method, kind: type, *, name: str, **fields: object) -> Method:
    """The method with some fields of its surrogate replaced.

    Raises `ValueError` if the surrogate is not of this `kind`; `name` is the name of the modifier.
    """

    def change(term: PolicyTerm) -> PolicyTerm:
        if not isinstance(term.surrogate, kind):
            raise ValueError(
                f"{name} changes a surrogate {kind.__name__}, this method's is"
                f" {type(term.surrogate).__name__}; leave it out, or choose another method"
            )
        surrogate = dataclasses.replace(term.surrogate, **fields)  # type: ignore[type-var]
        return dataclasses.replace(term, surrogate=surrogate)

    return change_policy_term(method, change, name=name)
