"""Modifiers: neutral options, effects, order, and refusals."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.parts import losses
from tests.methods.test_methods import RELATIVES, each, gather, loss_batch, loss_of, trajectories

NEUTRAL = {
    "clip": {"low": 0.2, "high": 0.28},
    "dual_clip": {"limit": 1e6},
    "two_sided_clip": {"limit": 1e6},
    "weight_clip": None,  # another surrogate: below
    "unit_ratio": None,
    "recompute": {},
    "importance": {"limit": 1.0},
    "kl": {"weight": 0.0},
    "entropy_bonus": {"weight": 0.0},
    "overlong": {"longest": 10_000, "buffer": 10},
    "reward": {"function": lambda t: 3.0, "weight": 0.0, "name": "mine"},
    "reduce": {"over": "token"},
    "dynamic_sampling": {"rounds": 3},
}

FELT = {
    "clip": {"low": 0.01, "high": 0.01},
    "dual_clip": {"limit": 1.01},
    "two_sided_clip": {"limit": 1.281},
    "weight_clip": {},
    "unit_ratio": {"unit": "turn"},
    "recompute": {},
    "importance": {"limit": 0.5},
    "kl": {"weight": 0.5},
    "entropy_bonus": {"weight": 0.5},
    "overlong": {"longest": 3, "buffer": 2},
    "reward": {"function": lambda t: float(len(t.turns)), "name": "mine"},
    "reduce": {"over": "turn"},
    "dynamic_sampling": {"rounds": 3},
}


def test_suite_holds_every_modifier():
    assert set(NEUTRAL) == set(FELT) >= set(methods.MODIFIERS) - RELATIVES


def scored(batch, *, same):
    """The batch with the log-probs that modifiers need: those of μ, or of policies beside it."""
    shift = 0.0 if same else 0.3
    return dataclasses.replace(
        batch,
        proximal_logprobs=batch.behavior_logprobs - shift * batch.token_advantages,
        reference_logprobs=batch.behavior_logprobs - shift,
    )


def everything(method, *, same):
    """All numbers of a method that training depends on."""
    policy, batch = loss_batch()
    batch = scored(batch, same=same)
    entropies = jnp.abs(policy)

    def total(policy):
        scores = losses.Scores(policy, entropies + 0.1 * policy)
        return method.reduce(method.loss(scores, batch)[0], batch).mean()

    episodes = gather(method, trajectories())
    credit = methods.assign(method, method.credit.init(), episodes)[1]
    groups = [trajectories()[:5], trajectories()[5:8]]
    kept = [method.prompts.has_signal(group) for group in groups]
    return jax.value_and_grad(total)(policy), credit.advantages, kept


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, options in NEUTRAL.items() if options is not None])
def test_neutral_modifier_leaves_the_method_as_it_is(name):
    plain = methods.gtpo()
    changed = methods.chain(plain, methods.MODIFIERS[name](**NEUTRAL[name]))
    before, after = everything(plain, same=True), everything(changed, same=True)
    chex.assert_trees_all_close(after[:2], before[:2], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", FELT)
def test_modifier_changes_something(name):
    plain = methods.gtpo()
    changed = methods.chain(plain, methods.MODIFIERS[name](**FELT[name]))
    before = jax.tree.leaves(everything(plain, same=False))
    after = jax.tree.leaves(everything(changed, same=False))
    assert any(not np.allclose(a, b, atol=1e-4) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["weight_clip", "unit_ratio"])
def test_another_surrogate_has_the_gradient_of_reinforce_on_policy(name):
    policy, batch = loss_batch()
    batch = dataclasses.replace(batch, behavior_logprobs=policy)
    plain = methods.gtpo()
    changed = methods.chain(plain, methods.MODIFIERS[name]())
    _, before = loss_of(plain, policy, batch)
    _, after = loss_of(changed, policy, batch)
    chex.assert_trees_all_close(after, before, atol=1e-6)


@each
def test_every_method_takes_every_modifier_or_says_why_not(name):
    for modifier, options in FELT.items():
        try:
            changed = methods.chain(methods.METHODS[name](), methods.MODIFIERS[modifier](**options))
        except ValueError as error:
            refused = modifier in ("clip", "dual_clip", "two_sided_clip") and name == "cispo"
            assert refused or (modifier == "overlong" and name == "dapo"), error
        else:
            assert changed.loss.needs <= set(losses.NEEDS)


def test_modifiers_apply_from_left_to_right_and_all_of_them_stay():
    method = methods.chain(
        methods.gtpo(),
        methods.clip(high=0.5),
        methods.dual_clip(limit=3.0),
        methods.importance(limit=2.0),
        methods.kl(weight=0.1),
        methods.kl(weight=0.2),
        methods.reward(function=len, name="a"),
        methods.reward(function=len, name="b"),
    )
    term = method.loss.terms[0]
    assert term.surrogate == losses.Clip(high=0.5, dual=3.0)
    assert (term.recompute, term.corrections) == (True, (losses.Truncation(high=2.0),))
    assert [t.weight for t in method.loss.terms[1:]] == [0.1, 0.2]
    assert set(method.rewards) == {"outcome", "partial", "format", "a", "b"}
    assert [fact.name for fact in method.facts] == ["code", "reward a", "reward b"]
    with pytest.raises(ValueError, match="has a reward 'a' already, beside"):
        methods.reward(function=len, name="a")(method)


def test_method_without_a_policy_term_refuses_modifiers_of_it():
    imitation = methods.grpo()._replace(loss=losses.imitation())
    with pytest.raises(ValueError, match="dual_clip changes a policy-gradient term"):
        methods.dual_clip()(imitation)
