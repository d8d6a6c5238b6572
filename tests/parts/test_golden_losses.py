"""Losses and their gradients compared with numbers from public implementations (`tests/golden`).

verl is the first oracle, TRL the second. Where they disagree with each other or with us, the test
pins both numbers and says whom we follow.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax.maths import divergences, ratios
from gtpo_jax.parts import losses, reductions
from gtpo_jax.types import TokenBatch
from tests.golden.loader import close, floats, golden, integers, kept, load

pytestmark = pytest.mark.slow


def token_batch(mask, segment_ids=None, turn_ids=None) -> TokenBatch:
    """Rows for a reduction; each row is a trajectory unless `segment_ids` says otherwise."""
    mask = kept(mask)
    segments = jnp.ones(mask.shape, jnp.int32) if segment_ids is None else integers(segment_ids)
    blank = jnp.zeros(mask.shape, jnp.int32)
    return TokenBatch(
        tokens=blank,
        positions=blank,
        segment_ids=segments,
        loss_mask=mask,
        turn_ids=jnp.where(mask, 0, -1) if turn_ids is None else integers(turn_ids),
        trajectory_ids=segments - 1,
        behavior_logprobs=floats(blank),
        token_advantages=floats(blank),
    )


def reduction(name: str, width: int):
    """Our reduction for a name of verl's or TRL's."""
    if name in ("token-mean", "dapo", "cispo"):
        return reductions.token_mean
    if name in ("seq-mean-token-mean", "grpo"):
        return reductions.sequence_mean
    assert name in ("seq-mean-token-sum-norm", "dr_grpo")
    return functools.partial(reductions.constant_length, length=width)


def value_and_gradient(per_token, reduce, x, batch):
    """The loss and its gradient by `x`, compiled."""
    return jax.jit(jax.value_and_grad(lambda x: reduce(per_token(x), batch).mean()))(x)


def bounded_log_ratios(policy, old, batch, *, per_sequence: bool):
    """Log-ratios of tokens, or of whole rows (GSPO)."""
    log_ratio = ratios.log_ratios(policy, old)
    if not per_sequence:
        return log_ratio
    rows = len(policy)
    units = jnp.broadcast_to(jnp.arange(rows)[:, None], policy.shape)
    return ratios.unit_log_ratios(log_ratio, batch.loss_mask, units, units=rows)


@pytest.mark.parametrize("case", load("verl_losses"))
def test_losses_and_gradients_match_verl(case):
    # `vanilla_far`: log-ratios of ±25 are cut to ±20 by verl and by us alike.
    inputs, outputs = golden("verl_losses", case)
    function = load("verl_losses")[case]["function"]
    batch = token_batch(inputs["response_mask"])
    old, advantage = floats(inputs["old_log_prob"]), floats(inputs["advantages"])
    options = {"clip_low": inputs["clip_ratio_low"], "clip_high": inputs["clip_ratio_high"]}
    if "clip_ratio_c" in inputs:
        options["dual_clip"] = inputs["clip_ratio_c"] if inputs["clip_ratio_c"] < 1e6 else None

    def surrogate(policy):
        log_ratio = bounded_log_ratios(policy, old, batch, per_sequence=function.endswith("gspo"))
        if function.endswith("cispo"):
            return losses.cispo_surrogate(log_ratio, policy, advantage, **options)
        return losses.clipped_surrogate(log_ratio, advantage, **options)

    policy = floats(inputs["log_prob"])
    reduce = reduction(inputs["loss_agg_mode"], policy.shape[1])
    loss, gradient = value_and_gradient(lambda x: surrogate(x).loss, reduce, policy, batch)
    close(loss, outputs["loss"])
    close(gradient, outputs["gradient"])
    clipped = reductions.token_mean(floats(surrogate(policy).clipped), batch).mean()
    close(clipped, outputs["clipped_share"])


def test_dual_clip_is_off_by_default_where_verl_has_it_on():
    # Neither GTPO nor GRPO has a dual clip; verl applies one of c = 3 unless told otherwise. The
    # token with A = −2 and ratio e^2.2 has loss 6 in verl, and keeps its gradient in ours.
    inputs, with_clip = golden("verl_losses", "vanilla_dual_clip")
    _, without = golden("verl_losses", "vanilla_token-mean")
    assert inputs["clip_ratio_c"] == 3.0
    assert with_clip["gradient"][0, 4] == 0.0 and without["gradient"][0, 4] > 0.5
    log_ratio = floats(inputs["log_prob"][0][4] - inputs["old_log_prob"][0][4])
    assert float(losses.clipped_surrogate(log_ratio, floats(-2.0)).loss) > 17.0
    bounded = losses.clipped_surrogate(log_ratio, floats(-2.0), dual_clip=3.0)
    close(bounded.loss, 6.0)


def trl_loss(case: str):
    """Our loss and gradient on the inputs of a TRL case, and TRL's."""
    inputs, outputs = golden("trl_losses", case)
    batch = token_batch(inputs["completion_mask"])
    old, advantage = floats(inputs["old_per_token_logps"]), floats(inputs["advantages"])
    per_sequence = inputs["importance_sampling_level"] == "sequence"

    def per_token(policy):
        log_ratio = bounded_log_ratios(policy, old, batch, per_sequence=per_sequence)
        if inputs["loss_type"] == "cispo":
            # TRL's bound is the ratio itself, verl's and ours its distance from 1.
            bound = inputs["epsilon_high"] - 1.0
            return losses.cispo_surrogate(log_ratio, policy, advantage, clip_high=bound).loss
        loss = losses.clipped_surrogate(
            log_ratio,
            advantage,
            clip_low=inputs["epsilon_low"],
            clip_high=inputs["epsilon_high"],
            ratio_cap=inputs["delta"],
        ).loss
        if inputs["beta"]:
            reference = floats(inputs["ref_per_token_logps"])
            loss += inputs["beta"] * divergences.kl_k3(policy, reference)
        return loss

    policy = floats(inputs["per_token_logps"])
    reduce = reduction(inputs["loss_type"], policy.shape[1])
    return value_and_gradient(per_token, reduce, policy, batch), outputs


DISAGREE = (
    "grpo_with_untrained_row",
    "dr_grpo_with_untrained_row",
    "dapo_far",
    "gspo_token_advantages",
)


@pytest.mark.parametrize("case", [name for name in load("trl_losses") if name not in DISAGREE])
def test_losses_and_gradients_match_trl(case):
    # `*_two_sided`: δ = 4. `*_all_masked`: exact zeros in both.
    (loss, gradient), outputs = trl_loss(case)
    close(loss, outputs["loss"])
    close(gradient, outputs["gradient"])
    if case.endswith("all_masked"):
        assert float(loss) == 0.0 and not np.any(gradient)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo"])
def test_rows_without_a_trained_token_count_in_trl_but_not_here(loss_type):
    # TRL divides by all five rows, verl and we by the four that are trained: an excluded
    # trajectory must not shrink the step that the others make.
    (loss, gradient), trl = trl_loss(f"{loss_type}_with_untrained_row")
    close(loss, trl["loss"] * 5 / 4)
    close(gradient, trl["gradient"] * 5 / 4)


def test_sequence_ratios_leave_each_token_its_own_advantage_where_trl_mixes_them():
    # One advantage a row (`gspo` above): the same in all three. One a token: TRL differentiates the
    # mean log-ratio, so the slopes of a row are shared out evenly among its tokens, and the credit
    # of a turn reaches every other. We follow verl (GSPO-token): the same loss, and each token has
    # the slope of its own advantage.
    (loss, gradient), trl = trl_loss("gspo_token_advantages")
    close(loss, trl["loss"])
    close(np.sum(gradient, axis=1), np.sum(trl["gradient"], axis=1))
    close(trl["gradient"][0], [0.048312] * 8, atol=1e-5)
    close(gradient[0], [0, 0, 0, 0.085887, 0.085887, 0.085887, 0.085887, 0.042944], atol=1e-5)


def test_log_ratios_are_bounded_as_in_verl_where_trl_leaves_them_open():
    # A = −1 and log-ratio 25: the loss is e^20 in verl and here, without gradient; e^25 in TRL.
    (loss, gradient), trl = trl_loss("dapo_far")
    close(loss, golden("verl_losses", "vanilla_far")[1]["loss"])
    close(trl["loss"], np.exp(25.0) / 3)
    assert float(gradient[0, 0]) == 0.0 and trl["gradient"][0, 0] > 1e10


# Reductions


AGGREGATIONS = {
    "token_mean": reductions.token_mean,
    "seq_mean_token_mean": reductions.sequence_mean,
    "seq_mean_token_sum_norm": functools.partial(reductions.constant_length, length=8),
    "seq_mean_token_sum_norm_factor": functools.partial(reductions.constant_length, length=20),
}


@pytest.mark.parametrize("packed", [False, True], ids=["rows", "packed"])
@pytest.mark.parametrize("case", AGGREGATIONS)
def test_reductions_match_verl_padded_and_packed(case, packed):
    # The fifth row has no trained token. Packed, all five lie in one row.
    inputs, outputs = golden("verl_aggregation", case)
    loss, mask = floats(inputs["loss_mat"]), kept(inputs["loss_mask"])
    rows, width = mask.shape
    segments = np.ones((rows, width), np.int32)
    if packed:
        segments = np.repeat(np.arange(1, rows + 1), width)[None]
    batch = token_batch(mask.reshape(segments.shape), segments)
    loss = loss.reshape(segments.shape)
    value, gradient = value_and_gradient(lambda x: x, AGGREGATIONS[case], loss, batch)
    close(value, outputs["loss"])
    close(gradient.reshape(rows, width), outputs["gradient"])


def test_turn_mean_is_the_sequence_mean_of_verl_with_a_turn_a_row():
    # No implementation has a turn mean: verl is given the turns of one trajectory as rows.
    inputs, outputs = golden("verl_aggregation", "seq_mean_token_mean")
    loss, mask = floats(inputs["loss_mat"]), kept(inputs["loss_mask"])
    turn_ids = np.repeat(np.arange(len(mask)), mask.shape[1])[None]
    batch = token_batch(mask.reshape(1, -1), turn_ids=turn_ids)
    value, gradient = value_and_gradient(
        lambda x: x, reductions.turn_mean, loss.reshape(1, -1), batch
    )
    close(value, outputs["loss"])
    close(gradient.reshape(mask.shape), outputs["gradient"])


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"])
def test_reductions_of_nothing_are_zero_where_verl_gives_nan(mode):
    # One such batch would ruin the parameters. We follow TRL, which gives 0.
    inputs, outputs = golden("verl_aggregation", f"all_masked_{mode}")
    assert np.isnan(outputs["loss"])
    loss, batch = floats(inputs["loss_mat"]), token_batch(inputs["loss_mask"])
    value, gradient = value_and_gradient(lambda x: x, reduction(mode, 8), loss, batch)
    chex.assert_trees_all_equal((value, gradient), (jnp.float32(0.0), jnp.zeros_like(loss)))


# KL and importance weights


ESTIMATORS = {"k1": divergences.kl_k1, "k2": divergences.kl_k2, "k3": divergences.kl_k3}


def estimate(kind: str, case: str):
    inputs, outputs = golden("verl_kl", case)
    policy, reference = floats(inputs["logprob"]), floats(inputs["ref_logprob"])
    value = ESTIMATORS[kind](policy, reference)
    gradient = jax.grad(lambda x: jnp.sum(ESTIMATORS[kind](x, reference)))(policy)
    return (value, gradient), outputs


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_kl_estimators_match_verl_in_value_and_gradient(kind):
    (value, gradient), outputs = estimate(kind, kind)
    close(value, outputs["kl"])
    close(gradient, outputs["gradient"])


@pytest.mark.parametrize(
    "kind, verl, ours, verl_gradient, our_gradient",
    [
        ("k1", [-3.0, 25.0, -25.0], [-3.0, 20.0, -20.0], [1, 1, 1], [1, 0, 0]),
        ("k2", [4.5, 312.5, 312.5], [4.5, 200.0, 200.0], [-3, 25, -25], [-3, 0, 0]),
        (
            "k3",
            [10.0, 10.0, 10.0],
            [np.exp(3) - 4, 19.0, np.exp(20) - 21],
            [0, 0, 0],
            [1 - np.exp(3), 0, 0],
        ),
    ],
)
def test_kl_far_from_the_reference_is_bounded_by_the_log_ratio_alone(
    kind, verl, ours, verl_gradient, our_gradient
):
    # Log-ratios −3, 25, −25. We bound the log-ratio to ±20 in all three, to keep `exp`
    # finite; verl does so in k3 alone, where it cuts the value to 10 too and so lets go of the
    # policy at a log-ratio of −2.6, exactly where the penalty is wanted. TRL bounds nothing.
    (value, gradient), outputs = estimate(kind, f"{kind}_far")
    close(outputs["kl"], verl)
    close(outputs["gradient"], verl_gradient)
    close(value, ours)
    close(gradient, our_gradient)


def importance(case: str):
    inputs, outputs = golden("verl_importance_weights", case)
    log_ratio = floats(inputs["log_ratio"])
    mask, limit = kept(inputs["response_mask"]), inputs["rollout_is_threshold"]
    ours = losses.truncated_importance_weights(
        log_ratio, jnp.zeros_like(log_ratio), mask, limit=limit
    )
    return ours, outputs, int(jnp.sum(mask))


@pytest.mark.parametrize("case", load("verl_importance_weights"))
def test_truncated_importance_weights_match_verl(case):
    # `token_far`: both bound the log-ratio to ±20 first.
    ours, verl, _ = importance(case)
    close(ours.weights, verl["weights"])


def test_effective_share_is_that_of_the_weights_before_truncation():
    # verl's is taken after truncation, which hides the very tokens that it should report.
    # Where nothing is truncated, the two are one.
    whole, verl_whole, _ = importance("token_untruncated")
    cut, verl_cut, _ = importance("token_truncated")
    close(whole.effective_share, verl_whole["effective_sample_size"])
    close(cut.effective_share, verl_whole["effective_sample_size"])
    assert verl_cut["effective_sample_size"] > verl_whole["effective_sample_size"] + 0.1
    assert not np.any(whole.truncated) and np.any(cut.truncated)
