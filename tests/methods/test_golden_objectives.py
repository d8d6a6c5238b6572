"""Token objectives, compared with numbers from public code: LLDS, GMPO, SAPO, Clip-Cov, KL-Cov, OPO
(verl), λ-GRPO, RAFT and Reinforce-Rej, OPMD, AsymRE and REC (Trinity-RFT)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.maths import masking
from gtpo_jax.parts import credit, losses, reductions, spreads
from gtpo_jax.types import EpisodeBatch, TokenBatch
from tests.golden.loader import close, floats, golden, integers, kept

pytestmark = pytest.mark.slow


def packed(mask, old, advantages, *, marks=None) -> TokenBatch:
    """A batch in which every row is a trajectory, and each run of its mask a turn."""
    mask = np.asarray(mask) != 0
    starts = mask & ~np.pad(mask[:, :-1], ((0, 0), (1, 0)))
    zeros = jnp.zeros(mask.shape, jnp.int32)
    return TokenBatch(
        tokens=zeros,
        positions=zeros,
        segment_ids=zeros + 1,
        loss_mask=jnp.asarray(mask),
        turn_ids=integers(np.where(mask, np.cumsum(starts, axis=1) - 1, -1)),
        trajectory_ids=zeros + jnp.arange(len(mask))[:, None],
        behavior_logprobs=floats(old),
        token_advantages=floats(advantages),
        marks=marks,
    )


def value_and_gradient(loss, policy, batch, reduce):
    """Loss per token, the whole loss, and its gradient by the log-probs."""

    def total(logprobs):
        per_token = loss(losses.Scores(logprobs, jnp.zeros_like(logprobs)), batch)[0]
        return reduce(per_token, batch).mean(), per_token

    (whole, per_token), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(floats(policy))
    mask = np.asarray(batch.loss_mask)
    return np.where(mask, per_token, 0.0), whole, np.where(mask, gradient, 0.0)


def rows_of(tokens, mask, index):
    """Episodes of one turn, with lengths and groups, and the rewards of their turns."""
    lengths = np.sum(np.asarray(mask), axis=1)
    one = np.ones((len(lengths), 1), bool)
    episodes = EpisodeBatch(
        group_ids=integers(index),
        included=jnp.asarray(one[:, 0]),
        success=jnp.asarray(np.sum(tokens, axis=1) > 0),
        turn_mask=jnp.asarray(one),
        violations=jnp.asarray(~one),
        facts={"response_tokens": integers(lengths)},
    )
    return floats(np.sum(tokens, axis=1))[:, None], episodes


def advantages_of(link, inputs, **facts):
    rewards, episodes = rows_of(*(inputs[n] for n in FIELDS))
    episodes = dataclasses.replace(episodes, facts={**episodes.facts, **facts})
    found = jax.jit(link.apply)(link.init(), rewards, episodes)[1]
    return np.asarray(found) * np.asarray(inputs["response_mask"])


def cases(*names, long=()):
    """The cases, of which some only repeat an idea."""
    return [*names, *(pytest.param(name, marks=pytest.mark.long) for name in long)]


FIELDS = ("token_level_rewards", "response_mask", "index")


def close_slope(found, expected):
    """Gradients of the oracles are central differences."""
    close(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    "case", cases("response", "chunk_falling", long=("chunk", "response_falling"))
)
def test_llds_is_that_of_its_authors(case):
    inputs, outputs = golden("llds", case)
    unit = "turn" if inputs["chunk_noreduce"] else "sequence"
    loss = losses.kept_likelihood(weight=inputs["no_reduce_lambda"], unit=unit)
    batch = packed(inputs["loss_mask"], inputs["old_log_probs"], inputs["advantages"])
    found = value_and_gradient(loss, inputs["log_prob"], batch, reductions.token_mean)
    close(found[0], outputs["weighted_penalty"])
    close(found[1], outputs["loss_noreduce"])
    close_slope(found[2], outputs["gradient"])


def verl_loss(case, inputs):
    """Our loss and reduction for a case of verl's losses."""
    if case.startswith("sapo"):
        surrogate = losses.SoftGate(positive=inputs["tau_pos"], negative=inputs["tau_neg"])
        return losses.Loss((losses.PolicyTerm(surrogate),)), reductions.sequence_mean
    if case.startswith("gmpo"):
        return methods.gmpo(low=inputs["low"], high=inputs["high"]).loss, reductions.sequence_mean
    share, weight = inputs["kl_cov_ratio"], inputs["ppo_kl_coef"]
    method = methods.chain(methods.grpo(), methods.kl_cov(share=share, weight=weight))
    return method.loss, reductions.token_mean


@pytest.mark.parametrize("case", cases("sapo", "gmpo_tight", long=("sapo_sharp", "gmpo")))
def test_losses_are_those_of_verl(case):
    inputs, outputs = golden("verl_objectives", case)
    loss, reduce = verl_loss(case, inputs)
    batch = packed(inputs["response_mask"], inputs["old_log_prob"], inputs["advantages"])
    per_token, whole, gradient = value_and_gradient(loss, inputs["log_prob"], batch, reduce)
    close(whole, outputs["total"])
    close_slope(gradient, outputs["gradient"])
    if "loss" in outputs:
        close(per_token, outputs["loss"])


def written(inputs):
    """The arguments of a spread, with the log-probs that verl takes covariances of."""
    mask = np.asarray(inputs["response_mask"]) != 0
    ids = np.where(mask, 0, -1).astype(np.int32)
    logprobs = floats(inputs["log_prob"])
    found = spreads.Written(0 * ids, ids, jnp.zeros_like(logprobs), logprobs)
    episodes = rows_of(inputs["response_mask"], inputs["response_mask"], np.arange(len(mask)))[1]
    return floats(inputs["advantages"])[:, :1], found, episodes


@pytest.mark.parametrize("case", cases("kl_cov", long=("kl_cov_one",)))
def test_kl_cov_is_that_of_verl(case):
    inputs, outputs = golden("verl_objectives", case)
    loss, reduce = verl_loss(case, inputs)
    [mark] = loss.marks
    args = written(inputs)
    chosen = mark.function(spreads.evenly(*args), args[1], args[2])
    marks = {mark.name: chosen}
    batch = packed(
        inputs["response_mask"], inputs["old_log_prob"], inputs["advantages"], marks=marks
    )
    per_token, whole, _ = value_and_gradient(loss, inputs["log_prob"], batch, reduce)
    close(per_token, outputs["loss"])
    close(whole, outputs["total"])


def test_clip_cov_takes_its_tokens_from_the_band_of_verl():
    inputs, outputs = golden("verl_objectives", "clip_cov")
    spread = spreads.without_covariant(
        share=inputs["clip_cov_ratio"], low=inputs["clip_cov_lb"], high=inputs["clip_cov_ub"]
    )
    found = np.asarray(spread(*written(inputs)))
    mask = np.asarray(inputs["response_mask"]) != 0
    close(np.where(mask, -found, 0.0), outputs["loss"])  # every ratio is 1
    clipped = np.sum(mask & (found == 0) & (np.asarray(inputs["advantages"]) != 0))
    assert 0 < clipped < np.sum(mask)


def test_opo_is_that_of_verl():
    inputs, outputs = golden("verl_objectives", "opo")
    close(advantages_of(credit.minus_weighted_mean(), inputs), outputs["advantages"])


@pytest.mark.parametrize("case", cases("ragged", long=("example", "alone")))
def test_prefix_shares_are_those_of_its_authors(case):
    inputs, outputs = golden("lambda_grpo", case)
    rows = [row[1:] for row in inputs["trajectories"]]  # without the prompt
    width = max(map(len, rows))
    ids = np.array([[0] * len(row) + [-1] * (width - len(row)) for row in rows], np.int32)
    tokens = np.array([row + [0] * (width - len(row)) for row in rows], np.int32)
    prompts = np.array([[row[0]] for row in inputs["trajectories"]], np.int32)
    prefixes = spreads.prefix_ids(jnp.asarray(tokens), jnp.asarray(ids), jnp.asarray(prompts))
    counts = spreads.multiplicities(
        prefixes, jnp.asarray(ids >= 0), jnp.zeros(len(rows), jnp.int32)
    )
    expected, at = outputs["loss_scales_flat"], 0
    for found, row in zip(np.asarray(counts), rows, strict=True):
        close(1 / found[: len(row)], expected[at + 1 : at + 1 + len(row)])
        at += 1 + len(row)
    assert at == len(expected)


def test_raft_and_reinforce_rej_are_those_of_minimal_rl():
    inputs, outputs = golden("minimal_rl", "raft")
    close(advantages_of(credit.positive(), inputs), outputs["advantages"])
    inputs, outputs = golden("minimal_rl", "reinforce_rej")
    found = advantages_of(credit.silence_equal_groups("success"), inputs)
    close(found, outputs["advantages"])


@pytest.mark.parametrize("case", ["opmd_mean", "opmd_logavgexp", "asymre"])
def test_baselines_are_those_of_trinity(case):
    inputs, outputs = golden("trinity_rec", case)
    mean = credit.standardized(credit.first_turn, divide_by_std=False)
    link = {
        "opmd_mean": mean,
        "opmd_logavgexp": credit.minus_log_mean_exp(inputs.get("tau", 1.0)),
        "asymre": credit.chain(mean, credit.raised(-inputs.get("baseline_shift", 0.0))),
    }[case]
    close(advantages_of(link, inputs), outputs["advantages"])


MODES: dict[str, losses.Sides] = {
    "one-side": "one",
    "two-side": "two",
    "ring": "ring",
    "none": "none",
}
WEIGHTS: dict[str, losses.Weight] = {
    "none": "none",
    "importance_sampling": "ratio",
    "advantage": "advantage",
}


@pytest.mark.parametrize(
    "case", cases("one_side", "ring", long=("one_side_is", "two_side_is", "red_weight"))
)
def test_rec_is_that_of_trinity(case):
    inputs, outputs = golden("trinity_rec", case)
    surrogate = losses.Reinforce(
        sides=MODES[inputs.get("mode", "none")],
        weight=WEIGHTS[inputs.get("weight", "none")],
        ring_low=inputs.get("lowp", 0.4),
        ring_high=inputs.get("highp", 0.4),
        temperature=inputs.get("temp", 1.0),
    )
    batch = packed(inputs["action_mask"], inputs["old_logprob"], inputs["advantages"])
    loss = losses.Loss((losses.PolicyTerm(surrogate),))
    per_token, whole, _ = value_and_gradient(loss, inputs["logprob"], batch, reductions.token_mean)
    close(per_token, outputs["pg_losses"])
    close(whole, outputs["pg_loss"])
    clipped = surrogate(
        floats(inputs["logprob"]) - floats(inputs["old_logprob"]),
        floats(inputs["logprob"]),
        floats(inputs["advantages"]),
    ).clipped
    counted = masking.masked_mean(floats(clipped), kept(inputs["action_mask"]))
    if "one" in case:  # elsewhere theirs counts tokens of A = 0 as clipped
        close(counted, outputs["pg_clipfrac"])
