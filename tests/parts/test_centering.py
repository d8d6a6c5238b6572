"""Score centering takes out the mean of the weighted scores under the sampler, exactly."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.parts import losses

WORDS, COUNT = 7, 3
WEIGHTS = {
    "one": lambda x, logprobs: jnp.ones_like(x),
    "truncated": lambda x, logprobs: jnp.minimum(jnp.exp(x), 1.3),
    "band": lambda x, logprobs: jnp.where(jnp.abs(x) < 0.4, jnp.exp(x), 0.0),
    "exact": lambda x, logprobs: jnp.exp(x),
}


def distributions(seed=0, rows=3):
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.standard_normal((rows, WORDS))
    return jnp.asarray(logits, jnp.float32), jnp.asarray(
        logits + 0.6 * rng.standard_normal(logits.shape), jnp.float32
    )


@functools.partial(jax.jit, static_argnums=2)
def gradients(policy, sampler, count):
    """Gradient by the policy's logits `[rows, WORDS]`, for all weights by their names."""
    recorded, ids = jax.lax.top_k(jax.nn.log_softmax(sampler), count)

    def total(logits, weigh):
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), ids, axis=-1)
        return jnp.sum(losses.score_centering(log_p, recorded, weigh))

    return {name: jax.grad(total)(policy, weigh) for name, weigh in WEIGHTS.items()}


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def mean_score(log_p, log_q, weigh):
    """`Σ_v q_v w_v ∇ log p_v` by the logits, over the whole vocabulary."""
    p, q = np.exp(log_p), np.exp(log_q)
    weights = np.asarray(weigh(jnp.asarray(log_p - log_q), jnp.asarray(log_p)), np.float64)
    scores = np.eye(WORDS) - p[:, None, :]  # ∇ log p_v by the logits
    return np.einsum("rv,rv,rvj->rj", q, weights, scores)


@pytest.mark.parametrize("name", WEIGHTS)
def test_gradient_is_the_mean_score_when_all_words_are_recorded(name):
    policy, sampler = distributions()
    expected = mean_score(log_softmax(policy), log_softmax(sampler), WEIGHTS[name])
    found = gradients(policy, sampler, WORDS)[name]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    if name == "exact":  # exact importance weights leave no drift
        assert np.abs(found).max() < 2e-6
    else:
        assert np.abs(found).max() > 0.02


@pytest.mark.parametrize("name", WEIGHTS)
def test_gradient_is_the_mean_score_under_the_modelled_sampler(name):
    # Outside the recorded words the sampler is taken for a multiple of the policy.
    policy, sampler = distributions(1)
    log_p, log_q = log_softmax(policy), log_softmax(sampler)
    head = np.argsort(np.argsort(-log_q, axis=-1), axis=-1) < COUNT
    p, q = np.exp(log_p), np.exp(log_q)
    rho = (1 - np.where(head, q, 0).sum(-1)) / (1 - np.where(head, p, 0).sum(-1))
    modelled = np.where(head, log_q, log_p + np.log(rho)[:, None])
    np.testing.assert_allclose(np.exp(modelled).sum(-1), 1.0)
    found = gradients(policy, sampler, COUNT)[name]
    np.testing.assert_allclose(found, mean_score(log_p, modelled, WEIGHTS[name]), atol=5e-6)


@pytest.mark.parametrize("name", WEIGHTS)
def test_sampler_that_is_the_policy_adds_nothing(name):
    policy, _ = distributions()
    assert np.abs(gradients(policy, policy, COUNT)[name]).max() < 1e-6


def test_words_that_cannot_be_drawn_are_no_part_of_the_head():
    log_p = jnp.log(jnp.array([[0.5, 0.3, 0.1]]))
    log_q = jnp.log(jnp.array([[0.6, 0.2, 0.0]]))  # the last log-prob is −inf

    @jax.jit
    @jax.value_and_grad
    def total(log_p, log_q):
        return jnp.sum(losses.score_centering(log_p, log_q))

    whole, short = (total(log_p[:, :n], log_q[:, :n]) for n in (3, 2))
    np.testing.assert_allclose(whole[0], short[0], rtol=1e-6)
    np.testing.assert_allclose(whole[1][0, :2], short[1][0], rtol=1e-6)
    assert whole[1][0, 2] == 0
    nothing = total(jnp.full((1, 2), -jnp.inf), jnp.full((1, 2), -jnp.inf))
    assert nothing[0] == 0 and not np.any(nothing[1])


def test_worked_example():
    # p = (.6, .4), q = (.5, .5): the mean score under q by the logits is q − p.
    p, q = jnp.log(jnp.array([0.6, 0.4])), jnp.log(jnp.array([0.5, 0.5]))
    slope = jax.grad(lambda x: losses.score_centering(jax.nn.log_softmax(x), q))
    found = jax.jit(slope)(p)
    np.testing.assert_allclose(found, [-0.1, 0.1], atol=1e-6)


CORRECTING = {
    "importance": {"unit": "sequence"},
    "decoupled_ppo": {},
    "icepop": {},
    "kpop": {},
    "rejection": {"unit": "turn"},
    "score_centering": {"count": 4},
    "dppo": {},
}
BASES = {
    "gtpo": methods.gtpo,
    "cispo": methods.cispo,
    "gspo": methods.gspo,
    "turns": lambda: methods.chain(methods.gtpo(), methods.unit_ratio(unit="turn")),
}


@pytest.mark.parametrize("base, name", [*itertools.product(BASES, CORRECTING)])
def test_corrections_compose_with_every_surrogate_or_say_why_not(base, name):
    modifier = methods.MODIFIERS[name](**CORRECTING[name])
    if base in ("gspo", "turns") and name in ("score_centering", "dppo"):
        with pytest.raises(ValueError, match=r"needs ratios of tokens.*leave one of the two"):
            methods.chain(BASES[base](), modifier)
        return
    method = methods.chain(BASES[base](), modifier, methods.kl(weight=0.1))
    needs = {"score_centering": {"candidates", "candidate_logprobs"}, "dppo": set()}
    expected = {"reference_logprobs"} | needs.get(name, {"proximal_logprobs"})
    assert method.loss.needs == expected
    assert method.loss.candidates == (4 if name == "score_centering" else 0)


def test_bounds_that_exclude_everything_are_refused():
    with pytest.raises(ValueError, match=r"0 <= low <= high, got 3.0 and 2.0"):
        methods.icepop(low=3.0, high=2.0)
    with pytest.raises(ValueError, match=r"low must lie in \[0, inf\], got -1"):
        methods.dppo(low=-1.0)
    with pytest.raises(ValueError, match="count must lie in"):
        methods.score_centering(count=0)


def test_divergence_of_a_certain_token_is_finite_only_from_itself():
    certain, likely = jnp.zeros(1), jnp.log(jnp.array([0.9]))
    assert losses.binary_kl(certain, certain) == 0
    np.testing.assert_allclose(losses.binary_kl(certain, likely), -np.log(0.9), rtol=1e-6)
    assert jnp.isposinf(losses.binary_kl(likely, certain))
