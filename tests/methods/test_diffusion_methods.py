"""Methods for diffusion models: worked examples, public code, and what they leave alone."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.decoding.diffusion import Canvas
from gtpo_jax.learner import packing
from gtpo_jax.maths.elbo import Quadrature, elbo_parts
from gtpo_jax.parts import losses, reductions
from gtpo_jax.parts.losses.sequence import quadrature_of
from tests.golden.loader import close, golden, load
from tests.methods.test_methods import trajectories
from tests.tiny import make_trajectory

CASES = load("cj_grpo")


def cases(function):
    names = [name for name, case in CASES.items() if case["inputs"]["function"] == function]
    return pytest.mark.parametrize("case", names)


def of_steps(steps, **floats):
    """A batch `[B, T]` with tokens in the order in which they were unmasked, and the floats so."""
    steps = np.asarray(steps)
    order = np.argsort(steps, axis=1, kind="stable")
    batch = packing.empty_batch(*steps.shape)
    rows = np.arange(len(steps))[:, None]
    batch = dataclasses.replace(
        batch,
        segment_ids=np.ones_like(batch.tokens),
        loss_mask=np.ones(steps.shape, bool),
        turn_ids=np.take_along_axis(steps, order, axis=1).astype(np.int32),
        trajectory_ids=np.broadcast_to(rows, steps.shape).astype(np.int32),
    )

    def ordered(x):
        return jnp.asarray(np.take_along_axis(np.asarray(x, np.float32), order, axis=1))

    return jax.tree.map(jnp.asarray, batch), {name: ordered(x) for name, x in floats.items()}


@cases("compute_loss")
def test_cj_grpo_matches_its_code(case):
    inputs, outputs = golden("cj_grpo", case)
    batch, values = of_steps(
        inputs["steps"],
        logprobs=inputs["per_token_logps"],
        old=inputs["old_per_token_logps"],
        reference=inputs["ref_per_token_logps"],
    )
    shape = batch.tokens.shape
    batch = dataclasses.replace(
        batch,
        behavior_logprobs=values["old"],
        reference_logprobs=values["reference"],
        token_advantages=jnp.broadcast_to(
            jnp.asarray(inputs["advantages"], jnp.float32)[:, None], shape
        ),
    )
    method = methods.cj_grpo(clip=inputs["epsilon"], kl_weight=inputs["beta"])

    @jax.jit
    def reduced(scores, batch):
        per_token, diagnostics = method.loss(scores, batch)
        divergence = diagnostics.get("reference_kl", jnp.zeros_like(per_token))
        return [method.reduce(x, batch).mean() for x in (per_token, divergence)]

    found = reduced(losses.Scores(values["logprobs"], jnp.zeros(shape)), batch)
    close(found, [outputs["loss"], outputs["mean_kl"]])


@cases("get_block_sizes")
def test_ascending_schedule_matches_its_code(case):
    inputs, outputs = golden("cj_grpo", case)
    canvas = Canvas(
        tokens=inputs["gen_length"],
        steps=inputs["steps"],
        blocks=inputs["block_num"],
        schedule="ascending",
    )
    assert sorted(set(canvas.ends())) == np.cumsum(outputs["block_sizes"]).astype(int).tolist()
    counts = canvas.counts()
    assert counts[:-1].tolist() == outputs["num_transfer_tokens"][:-1].tolist()
    # With several blocks the code asks for more tokens in the last step than the block has left.
    assert counts[-1] <= outputs["num_transfer_tokens"][-1] and counts.sum() == canvas.tokens


@cases("get_num_transfer_tokens")
def test_even_schedule_matches_its_code(case):
    inputs, outputs = golden("cj_grpo", case)
    canvas = Canvas(tokens=inputs["tokens"], steps=inputs["steps"])
    assert canvas.counts().tolist() == outputs["num_transfer_tokens"].tolist()


@cases("sampling")
def test_confidence_of_end_tokens_matches_its_code(case):
    inputs, outputs = golden("cj_grpo", case)
    canvas = Canvas(tokens=3, steps=inputs["total_steps"], eos_floor=inputs["eos_min_gamma"])
    chosen = np.array(inputs["x0"])
    p = np.take_along_axis(
        np.asarray(jax.nn.softmax(jnp.asarray(inputs["logits"]))), chosen[:, None], 1
    )
    factor = np.where(chosen == inputs["eos_token_id"], canvas.factors()[inputs["step_idx"]], 1.0)
    close(p[:, 0] * factor, outputs["confidence"])


def test_worked_examples():
    batch, values = of_steps([[0, 1, 1]], loss=[[0.2, 0.4, 0.8]])
    close(reductions.turn_mean(values["loss"], batch).mean(), 0.4)
    close(reductions.token_mean(values["loss"], batch).mean(), 0.4666667)
    close(Canvas(tokens=8, steps=3, eos_floor=0.01).factors(), [0.01, 0.505, 1.0])
    assert Canvas(tokens=16, steps=4, schedule="ascending").counts().tolist() == [1, 2, 4, 9]
    nodes, weights = Quadrature().levels()
    close(nodes, [0.211324865, 0.788675135])
    close(weights, [0.5, 0.5])


def test_parts_of_the_bound_are_the_weighted_sum():
    rng = np.random.default_rng(0)
    logprobs, masked = -rng.random((2, 3, 4, 5)), rng.random((2, 3, 4, 5)) < 0.5
    expected = np.zeros((4, 5))
    for n, (t, w) in enumerate(zip((0.2113248654, 0.7886751346), (0.5, 0.5), strict=True)):
        for k in range(3):
            expected += w / 3 / t * np.where(masked[n, k], logprobs[n, k], 0.0)
    junk = np.where(masked, logprobs, np.nan)
    with jax.enable_x64(True):
        found = elbo_parts(jnp.asarray(junk), jnp.asarray(masked), Quadrature(masks=3))
        assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    slope = jax.grad(lambda x: elbo_parts(x, jnp.asarray(masked), Quadrature(masks=3)).sum())(
        jnp.asarray(junk, jnp.float32)
    )
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("name", ["cj_grpo", "gdpo"])
def test_advantages_are_rewards_minus_the_mean_of_the_group(name):
    method, given = methods.METHODS[name](), trajectories()
    episodes = packing.episode_batch(given, max_turns=4, needs=method.facts)
    _, credit = methods.assign(method, method.credit.init(), jax.device_put(episodes))
    expected = methods.assign(
        methods.dr_grpo(), methods.dr_grpo().credit.init(), jax.device_put(episodes)
    )[1]
    chex.assert_trees_all_equal(credit.advantages, expected.advantages)
    rewards = np.array([t.success and not any(u.violation for u in t.turns) for t in given[:4]])
    np.testing.assert_allclose(credit.advantages[:4, 0], rewards - rewards.mean(), atol=1e-6)


def test_terms_must_agree_on_a_quadrature():
    assert quadrature_of(methods.gdpo(nodes=3, masks=2).loss) == Quadrature(nodes=3, masks=2)
    assert quadrature_of(methods.cj_grpo().loss) is None
    both = losses.add(methods.gdpo().loss, methods.gdpo(nodes=3).loss)
    with pytest.raises(ValueError, match="must agree on a quadrature"):
        quadrature_of(both)
    with pytest.raises(ValueError, match="masks must lie in"):
        methods.gdpo(masks=0)


def test_tokens_that_were_not_written_in_order_keep_their_places():
    trajectory = make_trajectory(np.random.default_rng(0), [(2, 0), (2, 0)], group=0, success=True)
    places = [np.array([3, 0], np.int32), np.array([1, 2], np.int32)]
    turns = [
        dataclasses.replace(turn, places=place)
        for turn, place in zip(trajectory.turns, places, strict=True)
    ]
    trajectory = dataclasses.replace(trajectory, turns=tuple(turns))
    length = len(trajectory.prompt)
    batch = packing.pack(
        [trajectory], np.ones((1, 2)), micro_batches=1, rows=1, row_length=length + 4
    )
    assert batch.positions[0, 0].tolist() == [*range(length), *(length + np.array([3, 0, 1, 2]))]
    assert batch.turn_ids[0, 0, length:].tolist() == [0, 0, 1, 1]
