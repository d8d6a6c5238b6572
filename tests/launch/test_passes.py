"""Batches of a training step: passes over them, shared prompts, rows that are too short."""

from __future__ import annotations

import chex
import jax
import numpy as np
import pytest

from launch.run.session import Session
from launch.train import TrainArguments, Trainer
from tests.launch import small
from tests.launch.test_train import GROUP_SIZE, Numbers, ScriptedEngine

pytestmark = pytest.mark.slow


def test_passes_go_over_the_same_batches_against_the_policies_that_the_step_began_with(tmp_path):
    method = ["gtpo", "+", "importance", "limit=2.0", "+", "kl", "weight=0.1"]
    options = ("--train.epochs", "2", "--train.method", *method)
    options += ("--train.optimizer.learning-rate", "1e-2", "--train.steps", "2")
    with Session(small.parse(TrainArguments, *options).config, tmp_path) as session:
        session.source = Numbers()
        trainer = Trainer(session, session.network.random())
        reference = jax.device_get(trainer.training.reference)
        seen, update = [], trainer.training.update

        def watched(state, batch):
            state, metrics = update(state, batch)
            seen.append((batch, jax.device_get(metrics)))
            return state, metrics

        trainer.training.update = watched
        state = trainer.state
        for step in range(2):
            trainer.engine = ScriptedEngine(lambda problem, sample: sample == 0)
            began = jax.device_get(state.params)
            state, _, figures = trainer.step(step, state)
            batches = [batch for batch, _ in seen]
            # Two minibatches, each of them twice, with the log-probs that the step began with.
            assert len(seen) == 4 and batches[0] is batches[2] and batches[1] is batches[3]
            for batch in batches[:2]:
                for params, logprobs in (
                    (began, batch.proximal_logprobs),
                    (reference, batch.reference_logprobs),
                ):
                    expected = trainer.training.logprobs(params, batch)
                    np.testing.assert_allclose(logprobs, expected, atol=1e-5)
            divergence = [float(metrics["reference_kl"]) for _, metrics in seen]
            assert (divergence[0] < 1e-6) == (step == 0) and divergence[-1] > 1e-5
            # The engine's invented log-probs are far above those of any policy here.
            assert 0 < figures["update/importance_weight"] < 0.1
            seen.clear()
        assert int(state.step) == 8
        chex.assert_trees_all_equal(jax.device_get(trainer.training.reference), reference)


def test_trajectories_of_a_group_share_its_prompt_and_a_minibatch(tmp_path):
    options = ("--train.shared-prompts", "--train.row-tokens", "320")
    with Session(small.parse(TrainArguments, *options).config, tmp_path) as session:
        session.source = Numbers()
        trainer = Trainer(session, session.network.random())
        trainer.engine = ScriptedEngine(lambda problem, sample: sample == 0)
        _, groups = trainer.sample(0, trainer.state)
        kept, seen, update = groups.kept, [], trainer.training.update

        def watched(state, batch):
            seen.append(jax.device_get(batch))
            return update(state, batch)

        trainer.training.update = watched
        trainer.learn(0, trainer.state, kept)
        batches = seen
    assert len(batches) == 2
    for batch in batches:
        assert np.max(batch.prefix_ids) > 0
        numbers = np.unique(np.asarray(batch.trajectory_ids))
        assert len(numbers[numbers >= 0]) == GROUP_SIZE
    trained = sum(int(np.sum(batch.loss_mask)) for batch in batches)
    assert trained == sum(len(turn.tokens) for t in kept for turn in t.turns)


def test_rows_that_hold_no_trajectory_are_bad_input(tmp_path):
    arguments = small.parse(TrainArguments, "--train.row-tokens", "100")
    with pytest.raises(ValueError, match=r"row_tokens is 100, and a trajectory may have 160"):
        Session(arguments.config, tmp_path)
