"""Rows shared by eight devices: the same numbers, whoever finds the exchange between them.

Under `Auto` axes the compiler does; under `Explicit` ones every room has to say where it needs all
rows.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gtpo_jax import methods
from gtpo_jax.learner import measured
from gtpo_jax.maths import logprobs, ratios, similarity, turns
from gtpo_jax.parts import credit, facts, losses, reductions
from gtpo_jax.parts.credit.discounted import discounted_returns, discounted_returns_closed_form
from gtpo_jax.parts.credit.standardized import normalize
from gtpo_jax.types import EpisodeBatch
from tests import reference
from tests.methods import rows_weights

pytestmark = pytest.mark.slow

M, K, WIDTH = 16, 3, 12
RNG = np.random.default_rng(0)
RAGGED = reference.ragged_batch(RNG, rows=M, width=K, groups=4)
REWARDS, MASK = reference.padded(RAGGED[0], K)
FACTS = (REWARDS, MASK, jnp.asarray(RAGGED[1], jnp.int32), jnp.asarray(RAGGED[2]))
EPISODES = EpisodeBatch(
    group_ids=FACTS[2],
    included=FACTS[3],
    success=jnp.asarray(RNG.random(M) < 0.5),
    turn_mask=MASK,
    violations=jnp.asarray(RNG.random((M, K)) < 0.2),
    facts={
        "code": facts.Code(
            jnp.asarray(RNG.integers(97, 100, (M, 20)), jnp.int32),
            jnp.asarray(RNG.integers(0, 21, M), jnp.int32),
        )
    },
)
# Eight rows, of which the last three are empty: some devices hold nothing but padding.
BATCH = reference.token_batch(
    [
        [[("given", 1), ("trained", 2), ("trained", 3)], [("trained", 4)]],
        *[[[("given", 2), ("trained", n), ("given", 1), ("trained", 1)]] for n in range(1, 5)],
        *([],) * 3,
    ],
    width=WIDTH,
)
LOSS, OTHER, HIDDEN, HEAD, LOGITS = (
    jnp.asarray(RNG.normal(size=shape), jnp.float32)
    for shape in ((8, WIDTH), (8, WIDTH), (8, WIDTH, 5), (5, 7), (8, WIDTH, 7))
)
SPAN = (BATCH.loss_mask, BATCH.trajectory_ids)


def assigned(method):
    """Rewards and advantages of a method, as a function of episodes."""
    return lambda episodes: methods.assign(method, method.credit.init(), episodes)[1]


def relative(*modifiers):
    """A method with modifiers, and episodes with the facts that it needs."""
    method = methods.chain(*modifiers)
    made = rows_weights.relatives.with_facts(EPISODES, np.random.default_rng(1)).facts
    given = {fact.name: jnp.asarray(made[fact.name]) for fact in method.facts}
    return assigned(method), (dataclasses.replace(EPISODES, facts=given),)


CALLS = {
    name: (getattr(methods, name), FACTS) for name in dir(methods) if name.endswith("_advantages")
}
CALLS |= {
    f"normalize over {name}": (functools.partial(normalize, over=over), FACTS[:3])
    for name, over in credit.SETS.items()
}
CALLS |= {
    "states before turns": (
        functools.partial(measured.states_before_turns, trajectories=8, turns=K),
        (HIDDEN, BATCH),
    ),
    "last turns": (functools.partial(measured.last_turn_means, trajectories=8), (OTHER, BATCH)),
    "gtpo": (assigned(methods.gtpo()), (EPISODES,)),
    "grpo": (assigned(methods.grpo()), (EPISODES,)),
    "weights": relative(
        methods.gigpo(),
        methods.salt(),
        methods.seed_grpo(),
        methods.edge_grpo(),
        methods.egpo(),
        methods.gcpo(),
        methods.dr_irl(),
        methods.tempsamp(shaping="anchor"),
        methods.grpo_lead(),
        methods.silenced(equal="reward"),
    ),
    "spo": relative(methods.spo(slots=8)),
    "brpo": relative(methods.brpo()),
    "rank_grpo": relative(methods.rank_grpo(), methods.tempsamp()),
    "step_grpo": relative(methods.step_grpo(discount=0.9)),
    "token_mean": (reductions.token_mean, (LOSS, BATCH)),
    "sequence_mean": (reductions.sequence_mean, (LOSS, BATCH)),
    "turn_mean": (reductions.turn_mean, (LOSS, BATCH)),
    "constant_length": (functools.partial(reductions.constant_length, length=7), (LOSS, BATCH)),
    "returns": (functools.partial(discounted_returns, discount=0.9), FACTS[:2]),
    "closed_returns": (
        functools.partial(discounted_returns_closed_form, discount=0.9),
        FACTS[:2],
    ),
    "broadcast": (
        turns.broadcast_to_tokens,
        (REWARDS, BATCH.trajectory_ids, BATCH.turn_ids),
    ),
    "sum_by_turn": (
        functools.partial(turns.sum_tokens_by_turn, trajectories=M, max_turns=K),
        (LOSS, BATCH.trajectory_ids, BATCH.turn_ids),
    ),
    "unit_log_ratios": (functools.partial(ratios.unit_log_ratios, units=M), (LOSS, *SPAN)),
    "surrogate": (
        functools.partial(losses.clipped_surrogate, dual_clip=3.0, ratio_cap=4.0),
        (LOSS, OTHER),
    ),
    "importance_weights": (
        losses.truncated_importance_weights,
        (LOSS, OTHER, BATCH.loss_mask),
    ),
    "mean_pooled": (functools.partial(similarity.mean_pooled, trajectories=M), (HIDDEN, *SPAN)),
    "logprobs": (logprobs.token_logprobs, (LOGITS, BATCH.tokens)),
    "entropies": (logprobs.token_entropies, (LOGITS,)),
    "chunked": (
        lambda h, t, ids: logprobs.chunked_statistics(
            h, t, lambda x: x @ HEAD, chunk=4, needs=tuple(logprobs.EXTRAS), candidates=ids
        ),
        (HIDDEN, BATCH.tokens, jnp.asarray(RNG.integers(0, 7, (8, WIDTH, 3)), jnp.int32)),
    ),
    "mismatch": (
        lambda x, y, mask, ids: (
            ratios.unit_values(x[..., 0], mask, ids, units=M, how="max"),
            losses.score_centering(jax.nn.log_softmax(x), jax.nn.log_softmax(y)),
        ),
        (LOGITS, 2 * LOGITS, *SPAN),
    ),
}


@functools.cache
def alone(name):
    """The numbers of one device."""
    function, arguments = CALLS[name]
    return jax.device_get(jax.jit(function)(*arguments))


# What runs where shardings are part of the types runs where the compiler chooses them.
CHOSEN = ("gtpo", "logprobs", "chunked", "surrogate")
KINDS = [(name, AxisType.Explicit) for name in CALLS]
KINDS += [
    pytest.param(name, AxisType.Auto, marks=[] if name in CHOSEN else pytest.mark.long)
    for name in CALLS
]


@pytest.mark.parametrize(("name", "kind"), KINDS, ids=str)
def test_rows_on_eight_devices_give_the_numbers_of_one(name, kind):
    function, arguments = CALLS[name]
    expected = alone(name)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        shared = jax.device_put(arguments, NamedSharding(mesh, PartitionSpec("data")))
        assert len(jax.tree.leaves(shared)[0].sharding.device_set) == 8
        found = jax.jit(function)(*shared)
    chex.assert_trees_all_close(jax.device_get(found), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("how", ["sequence_mean", "turn_mean"])
def test_gradient_of_rows_on_eight_devices_is_that_of_one(how, kind):
    # Through the ratio of a unit: what is exchanged between devices carries no gradient.
    def total(policy, behavior, advantages, batch):
        log_ratio = ratios.unit_log_ratios(
            ratios.log_ratios(policy, behavior), batch.loss_mask, batch.trajectory_ids, units=M
        )
        loss = losses.clipped_surrogate(log_ratio, advantages).loss
        return getattr(reductions, how)(loss, batch).mean()

    arguments = (0.3 * LOSS, 0.3 * OTHER, LOGITS[..., 0], BATCH)
    expected = jax.device_get(jax.jit(jax.grad(total))(*arguments))
    assert np.any(expected)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        shared = jax.device_put(arguments, NamedSharding(mesh, PartitionSpec("data")))
        found = jax.jit(jax.grad(total))(*shared)
    chex.assert_trees_all_close(jax.device_get(found), expected, rtol=1e-5, atol=1e-7)
