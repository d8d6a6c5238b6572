"""Log-probs of diffusion models: by denoising step, and by the evidence lower bound."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gtpo_jax import decoding, learner, methods
from gtpo_jax.decoding import sampling
from gtpo_jax.decoding.diffusion import Canvas
from gtpo_jax.learner import diffusion, packing
from gtpo_jax.learner.noising import noised_stream
from gtpo_jax.maths.elbo import Quadrature
from gtpo_jax.parts import losses, reductions
from gtpo_jax.rollout import DiffusionEngine, RolloutLimits
from gtpo_jax.training import Layout, Training
from gtpo_jax.types import Problem, Request, StopReason, Verdict
from models import decoder
from tests import tiny
from tests.tiny import make_trajectory

MASK = tiny.BYTES.vocab_size
CONFIG = dataclasses.replace(tiny.CONFIG, vocab_size=MASK + 1, mask_id=MASK, layers=1)
FORWARD = decoding.restrict_vocabulary(decoder.forward_fn(CONFIG), MASK)
PARAMS = tiny.make_params(CONFIG)
CANVAS = Canvas(tokens=6, steps=3)
LIMITS = RolloutLimits(slots=4, context=24, prompt_tokens=16)
BY_STEP = diffusion.by_step(FORWARD, mask_id=MASK, steps=3)


def verdict(problem, answer):
    return Verdict.RIGHT if answer == problem.answer else Verdict.WRONG


@functools.cache
def engine():
    return DiffusionEngine(
        *(FORWARD, tiny.DIALOGUE, verdict, LIMITS, CANVAS, sampling.categorical), mask_id=MASK
    )


@functools.cache
def rollout():
    """Six trajectories of two problems."""
    requests = [
        Request(problem=Problem(id=name, question=name, answer="4"), group=group, sample=sample)
        for group, name in enumerate(("a", "bcd"))
        for sample in range(3)
    ]
    return requests, engine().run(PARAMS, requests, seed=5, step=2)


def packed(trajectories, rows=6, row_length=22):
    batch = packing.pack(
        trajectories,
        np.ones((len(trajectories), CANVAS.steps), np.float32),
        micro_batches=1,
        rows=rows,
        row_length=row_length,
    )
    return jax.tree.map(lambda x: jnp.asarray(x[0]), batch)


@functools.cache
def compiled(forward=BY_STEP):
    return jax.jit(functools.partial(learner.batch_logprobs, forward))


def test_trajectories_have_a_turn_for_each_step():
    requests, (trajectories, stats) = rollout()
    assert stats.sampled_tokens == 36
    for request, trajectory in zip(requests, trajectories, strict=True):
        assert (trajectory.group, trajectory.sample) == (request.group, request.sample)
        assert [len(turn.tokens) for turn in trajectory.turns] == [2, 2, 2]
        places = np.concatenate([turn.places for turn in trajectory.turns])
        assert sorted(places.tolist()) == list(range(6))
        assert trajectory.stop_reason in (StopReason.TURN_LIMIT, StopReason.NO_ACTION)
        assert trajectory.verdict is Verdict.NO_ANSWER and trajectory.turns[-1].violation


def test_trajectory_depends_on_its_own_request_alone():
    requests, (trajectories, _) = rollout()
    [alone], _ = engine().run(PARAMS, requests[4:5], seed=5, step=2)
    for mine, theirs in zip(alone.turns, trajectories[4].turns, strict=True):
        assert mine.tokens.tolist() == theirs.tokens.tolist()
    [other], _ = engine().run(PARAMS, requests[4:5], seed=5, step=3)
    assert any(
        a.tokens.tolist() != b.tokens.tolist()
        for a, b in zip(other.turns, alone.turns, strict=True)
    )


def test_what_a_plan_asks_in_vain_is_refused():
    request = dataclasses.replace(rollout()[0][0], question="another", temperature=0.5)
    with pytest.raises(ValueError, match="the plan asks for question, temperature"):
        engine().run(PARAMS, [request], seed=0, step=0)


def test_answers_are_parsed_up_to_the_first_end_token():
    answer = tiny.DIALOGUE.answer("", "4")
    tokens = np.concatenate([answer, [65] * (6 - len(answer))]).astype(np.int32)
    response = jax.tree.map(
        np.asarray,
        decoding.diffusion.Denoised(
            tokens=tokens,
            steps=np.array([0, 0, 1, 1, 2, 2], np.int32),
            logprobs=np.zeros(6, np.float32),
            entropies=np.zeros(6, np.float32),
        ),
    )
    request = rollout()[0][0]
    [trajectory] = engine()._judged([(request, np.arange(3), response)])
    assert (trajectory.answer, trajectory.verdict) == ("4", Verdict.RIGHT)
    assert trajectory.stop_reason is StopReason.ANSWERED
    assert not any(turn.violation for turn in trajectory.turns)


def test_log_probs_by_step_are_those_of_the_rollout():
    batch = packed(rollout()[1][0])
    found = compiled()(PARAMS, batch)
    mask = np.asarray(batch.loss_mask)
    gap = np.abs(np.asarray(found.logprobs) - np.asarray(batch.behavior_logprobs))[mask]
    assert gap.max() < 1e-5
    entropies = np.concatenate([u.entropies for t in rollout()[1][0] for u in t.turns])
    assert np.asarray(found.entropies)[mask].sum() == pytest.approx(entropies.sum(), rel=1e-5)


def test_packing_and_the_order_in_a_row_change_nothing():
    trajectories = rollout()[1][0]
    alone = compiled()(PARAMS, packed(trajectories)).logprobs
    dense = packed(trajectories, rows=3, row_length=44)
    together = compiled()(PARAMS, dense)
    for batch, found in ((packed(trajectories), alone), (dense, together.logprobs)):
        mask = np.asarray(batch.loss_mask)
        gaps = np.abs(np.asarray(found) - np.asarray(batch.behavior_logprobs))[mask]
        assert gaps.max() < 1e-5
    batch = packed(trajectories)
    order = np.random.default_rng(0).permutation(22)
    mixed = jax.tree.map(lambda x: x[:, order], batch)
    chex.assert_trees_all_close(
        np.where(mixed.loss_mask, compiled()(PARAMS, mixed).logprobs, 0),
        np.where(batch.loss_mask, alone, 0)[:, order],
        atol=1e-5,
    )


def test_chunks_of_logits_change_nothing():
    batch = packed(rollout()[1][0])
    chunked = jax.jit(functools.partial(learner.batch_logprobs, BY_STEP, chunk=5))(PARAMS, batch)
    chex.assert_trees_all_close(chunked, compiled()(PARAMS, batch), atol=1e-5)


def bound(seed, quadrature):
    forward = diffusion.by_elbo(FORWARD, mask_id=MASK, quadrature=quadrature, seed=seed)
    return jax.jit(functools.partial(learner.batch_logprobs, forward))


def test_bound_is_that_of_its_masks():
    quadrature, batch = Quadrature(nodes=2, masks=1), packed(rollout()[1][0])
    found = np.asarray(bound(0, quadrature)(PARAMS, batch).logprobs)
    masked = np.asarray(diffusion._random_masks(batch, quadrature, 0))
    assert masked.shape == (2, 1, 6, 22) and not np.any(masked & ~np.asarray(batch.loss_mask))
    expected = np.zeros(found.shape)

    @jax.jit
    def predicted(tokens):
        states, _ = FORWARD.hidden(PARAMS, tokens, batch.positions, segment_ids=batch.segment_ids)
        return jax.nn.log_softmax(FORWARD.logits(PARAMS, states))

    for t, hidden in zip((0.2113248654, 0.7886751346), masked[:, 0], strict=True):
        logprobs = np.asarray(predicted(np.where(hidden, MASK, batch.tokens)))
        taken = np.take_along_axis(logprobs, np.asarray(batch.tokens)[..., None], -1)
        expected += 0.5 / t * np.where(hidden, taken[..., 0], 0.0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_all_policies_see_the_same_masks_and_other_contents_see_others():
    quadrature = Quadrature(nodes=2, masks=200)
    batch = packed(rollout()[1][0])
    masks = functools.partial(diffusion._random_masks, quadrature=quadrature)
    first = np.asarray(masks(batch, seed=0))
    junk = dataclasses.replace(
        batch, behavior_logprobs=jnp.where(batch.loss_mask, batch.behavior_logprobs, jnp.nan)
    )
    assert np.array_equal(masks(junk, seed=0), first)
    assert np.array_equal(masks(jax.tree.map(lambda x: x[::-1], batch), seed=0), first[:, :, ::-1])
    assert not np.array_equal(masks(batch, seed=1), first)
    moved = dataclasses.replace(batch, behavior_logprobs=batch.behavior_logprobs * 1.01)
    assert not np.array_equal(masks(moved, seed=0), first)
    shares = first[..., np.asarray(batch.loss_mask)].mean(axis=(1, 2))
    errors = np.sqrt(0.2113 * 0.7887 / (200 * 36))
    np.testing.assert_allclose(shares, [0.2113, 0.7887], atol=5 * errors)


def test_extras_of_a_bound_are_refused():
    forward = diffusion.by_elbo(FORWARD, mask_id=MASK, quadrature=Quadrature())
    with pytest.raises(ValueError, match="an evidence lower bound has no collisions"):
        learner.batch_logprobs(forward, PARAMS, packed(rollout()[1][0]), needs=["collisions"])


@pytest.mark.parametrize("name", ["gdpo", pytest.param("cj_grpo", marks=pytest.mark.long)])
def test_a_step_of_training_raises_what_earned_more(name):
    """One group; the first trajectory succeeds. Its probability rises, the others' fall."""
    method = methods.METHODS[name]()
    given = [
        dataclasses.replace(
            trajectory,
            verdict=Verdict.RIGHT if trajectory.sample == 0 else Verdict.WRONG,
            stop_reason=StopReason.ANSWERED,
            turns=tuple(dataclasses.replace(t, violation=None) for t in trajectory.turns),
        )
        for trajectory in rollout()[1][0][3:]
    ]
    forward = diffusion.scored(FORWARD, method.loss, mask_id=MASK, steps=3)
    layout = Layout(groups=1, group_size=3, max_turns=3, row_tokens=22, rows=3)
    training = Training(forward, optax.sgd(1e-2), method, layout)
    state = training.init(jax.tree.map(jnp.array, PARAMS))
    state, report = training.step(0, state, given)
    [metrics] = report.updates
    assert metrics["ratio"] == pytest.approx(1.0, abs=1e-5) and metrics["grad_norm"] > 0
    np.testing.assert_allclose(report.credit.advantages[:, 0], [2 / 3, -1 / 3, -1 / 3], atol=1e-6)
    batch = packed(given, rows=3)
    change = compiled()(state.params, batch).logprobs - compiled()(PARAMS, batch).logprobs
    change = np.where(batch.loss_mask, change, 0.0).sum(axis=1)
    rows = np.max(np.asarray(batch.trajectory_ids), axis=1)
    assert change[rows == 0] > 0 > change[rows != 0].mean()
    if name == "cj_grpo":
        assert report.logprob_gap < 1e-5


def test_demonstrations_are_hidden_at_random_and_learned():
    rng = np.random.default_rng(0)
    demonstrations = [make_trajectory(rng, [(n, 0)], group=0, success=True) for n in (2, 4, 3)]
    stream = functools.partial(noised_stream, canvas=6, stop_id=7, rows=32, row_length=24)
    batch = next(stream(demonstrations, seed=0))
    chex.assert_trees_all_equal(batch, next(stream(demonstrations, seed=0)))
    hidden = np.asarray(batch.loss_mask)
    levels = np.where(hidden, 1 / np.where(hidden, batch.token_advantages, 1), 0).max(axis=1)
    assert np.array_equal(batch.turn_ids, np.where(hidden, 0, -1))
    assert 0.3 < hidden.sum() / (32 * 6) < 0.7 and len(np.unique(levels)) > 20
    method = diffusion.by_step(FORWARD, mask_id=MASK, steps=1)
    update = learner.make_update(
        method, optax.adam(1e-2), losses.denoising(), reductions.over_length(6)
    )
    state = learner.init_state(jax.tree.map(jnp.array, PARAMS), optax.adam(1e-2))
    update, found = learner.CompiledUpdate(update, state), []
    for step, batch in zip(range(30), stream(demonstrations, seed=1), strict=False):
        state, metrics = update(state, jax.tree.map(lambda x: x[None], batch))
        found.append(float(metrics["loss"]))
        assert step or found[0] > 3.0
    assert np.mean(found[-5:]) < 0.5 * found[0]


@pytest.mark.parametrize(
    ("turns", "message"), [([(2, 1), (1, 0)], "has 2 turns"), ([(9, 0)], "a response of 9")]
)
def test_demonstrations_that_cannot_be_written_are_refused(turns, message):
    demonstration = make_trajectory(np.random.default_rng(0), turns, group=0, success=True)
    with pytest.raises(ValueError, match=message):
        next(noised_stream([demonstration], canvas=6, stop_id=7, rows=2, row_length=24, seed=0))


def test_a_diffusion_model_has_no_cache():
    with pytest.raises(ValueError, match=r"a diffusion model \(mask_id is set\)"):
        tokens = jnp.zeros((1, 2), jnp.int32)
        FORWARD.hidden(PARAMS, tokens, tokens, cache=FORWARD.init_cache(1, 4))
