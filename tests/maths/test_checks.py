"""Bad input: errors that name the argument, what was expected, what came, and the way out.

The signatures, which the other tests check as well, are not: a user has only these errors.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from gtpo_jax import methods
from gtpo_jax.maths import checks, divergences, logprobs, ratios, similarity
from gtpo_jax.parts import losses, reductions, rewards
from gtpo_jax.parts.credit.discounted import discounted_returns
from tests.reference import token_batch

M, K = 3, 2
VALUES, MASK = jnp.zeros((M, K)), jnp.ones((M, K), bool)
IDS, INCLUDED = jnp.zeros(M, jnp.int32), jnp.ones(M, bool)
ROW = jnp.zeros((2, 4))
BATCH = token_batch([[[("trained", 4)]], [[("trained", 4)]]], width=4)


@pytest.fixture(autouse=True)
def signatures_unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def advantage(function, **changed):
    arguments = {
        "turn_rewards": VALUES,
        "turn_mask": MASK,
        "group_ids": IDS,
        "included": INCLUDED,
    }
    return lambda: function(**(arguments | changed))


def clipped(**options):
    return lambda: losses.clipped_surrogate(ROW, ROW, **options)


def shaped(**changed):
    arguments = {
        "success": INCLUDED,
        "included": INCLUDED,
        "group_ids": IDS,
        "similarity": jnp.zeros((M, M)),
        "weight": 0.5,
    }
    return lambda: rewards.shaped_outcomes(**(arguments | changed))


def chunked(**options):
    return lambda: logprobs.chunked_statistics(
        jnp.zeros((2, 4, 3)), BATCH.tokens, lambda h: h, **options
    )


# What is called, the type of the error, and its parts: argument, expected, got, way out.
SHAPES = [
    (
        lambda: checks.check_turns(turn_rewards=IDS),
        "turn_rewards",
        "[trajectories, turns]",
        "(3,)",
        "pad",
    ),
    (
        lambda: discounted_returns(VALUES, MASK[:, :1], discount=0.9),
        *("turn_mask", "shape of turn_rewards, (3, 2)", "(3, 1)", "pad or broadcast"),
    ),
    (
        lambda: rewards.format_rewards(MASK[:1], MASK, penalty=0.1),
        *("violations", "shape of turn_mask, (3, 2)", "(1, 2)", "pad or broadcast"),
    ),
    (shaped(group_ids=IDS[:2]), "group_ids", "each of the 3 trajectories", "(2,)", "flatten"),
    (
        shaped(similarity=jnp.zeros((M, 2))),
        *("similarity", "all 3 trajectories", "(3, 2)", "cosine_similarity"),
    ),
    (
        lambda: similarity.mean_pooled(
            jnp.zeros((2, 4, 3)), BATCH.loss_mask, BATCH.turn_ids[:1], trajectories=2
        ),
        *("mask", "shape of trajectory_ids, (1, 4)", "(2, 4)", "pad or broadcast"),
    ),
    (
        lambda: logprobs.token_logprobs(jnp.zeros((2, 3, 7)), BATCH.tokens),
        *("tokens", "[rows, positions]", "(2, 3, 7)", "unshifted"),
    ),
    (
        lambda: ratios.log_ratios(ROW, ROW[0]),
        *("behavior_logprobs", "shape of policy_logprobs, (2, 4)", "(4,)", "broadcast"),
    ),
    (
        lambda: losses.clipped_surrogate(ROW, ROW[:, :1]),
        *("advantages", "shape of log_ratio, (2, 4)", "(2, 1)", "broadcast"),
    ),
    (
        lambda: losses.cispo_surrogate(ROW, ROW, ROW[0]),
        *("advantages", "shape of log_ratio, (2, 4)", "(4,)", "broadcast"),
    ),
    (
        lambda: divergences.kl_k3(ROW, ROW[0]),
        *("reference_logprobs", "shape of policy_logprobs, (2, 4)", "(4,)", "broadcast"),
    ),
    (
        lambda: ratios.unit_log_ratios(ROW, BATCH.loss_mask, IDS, units=1),
        *("unit_ids", "shape of log_ratio, (2, 4)", "(3,)", "broadcast"),
    ),
    (
        lambda: losses.truncated_importance_weights(ROW, ROW, MASK),
        *("loss_mask", "shape of learner_logprobs, (2, 4)", "(3, 2)", "broadcast"),
    ),
    *[
        (
            lambda reduce=reduce: reduce(ROW[0], BATCH),
            *("loss_mask", "shape of per_token, (4,)", "(2, 4)", "broadcast"),
        )
        for reduce in (
            reductions.token_mean,
            reductions.sequence_mean,
            reductions.turn_mean,
            functools.partial(reductions.constant_length, length=4),
        )
    ],
]
RANGES = [
    (
        lambda: discounted_returns(VALUES, MASK, discount=90),
        *("discount", "[0, 1]", "90", "1 counts all turns"),
    ),
    (shaped(weight=1.5), "weight", "[0, 1]", "1.5", "below a success"),
    (shaped(floor=-2.0), "floor", "[-1, 1]", "-2.0", "clips negative"),
    (
        lambda: rewards.format_rewards(MASK, MASK, penalty=-0.1),
        *("penalty", "[0, inf]", "-0.1", "its magnitude"),
    ),
    (clipped(clip_low=1.2), "clip_low", "[0, 1]", "1.2", "above 1 - clip_low"),
    (clipped(clip_high=-0.1), "clip_high", "[0, inf]", "-0.1", "below 1 + clip_high"),
    (clipped(dual_clip=0.5), "dual_clip", "[1, inf]", "0.5", "None is off"),
    (clipped(ratio_cap=1.2), "ratio_cap", "[1.28, inf]", "1.2", "None is off"),
    (
        lambda: losses.cispo_surrogate(ROW, ROW, ROW, clip_low=2.0),
        *("clip_low", "[0, 1]", "2.0", "above 1 - clip_low"),
    ),
    (
        lambda: losses.truncated_importance_weights(ROW, ROW, BATCH.loss_mask, limit=0.0),
        *("limit", "greater than 0", "0.0", "2 is usual"),
    ),
    (
        lambda: logprobs.token_entropies(jnp.zeros((2, 3, 7)), temperature=0.0),
        *("temperature", "greater than 0", "0.0", "sample at 1"),
    ),
    (chunked(temperature=-1.0), "temperature", "greater than 0", "-1.0", "sample at 1"),
    (chunked(chunk=0), "chunk", "[1, inf]", "0", "64 is usual"),
    (
        lambda: reductions.constant_length(ROW, BATCH, length=0),
        *("length", "[1, inf]", "0", "budget of a trajectory"),
    ),
]
DTYPES = [
    (
        lambda: discounted_returns(VALUES, VALUES, discount=0.9),
        *("turn_mask", "boolean", "float32", "turn_mask != 0"),
    ),
    (shaped(success=VALUES[:, 0]), "success", "boolean", "float32", "success != 0"),
    (
        lambda: ratios.unit_log_ratios(ROW, ROW, BATCH.turn_ids, units=1),
        *("loss_mask", "boolean", "float32", "loss_mask != 0"),
    ),
]
for _name in dir(methods):
    _function = getattr(methods, _name)
    if _name.endswith("_advantages"):
        SHAPES += [
            (advantage(_function, turn_mask=MASK[:2]), "turn_mask", "(3, 2)", "(2, 2)", "pad"),
            (advantage(_function, included=MASK), "included", "each of the 3", "(3, 2)", "flatten"),
            (
                advantage(_function, group_ids=IDS[:1]),
                "group_ids",
                "each of the 3",
                "(1,)",
                "flatten",
            ),
        ]
        DTYPES += [
            (advantage(_function, turn_mask=VALUES), "turn_mask", "boolean", "float32", "!= 0"),
            (advantage(_function, included=IDS), "included", "boolean", "int32", "!= 0"),
        ]
    for _option, _value in (("ddof", -1), ("eps", -1e-6), ("discount", 1.1)):
        if _name.endswith("_advantages") and _option in inspect.signature(_function).parameters:
            _wrong = advantage(_function, **{_option: _value})
            RANGES.append((_wrong, _option, "must lie in [0, ", f"got {_value}", "; "))


@pytest.mark.parametrize(
    "kind, call, parts",
    [
        pytest.param(kind, call, parts, id=f"{kind.__name__}-{parts[0]}-{index}")
        for kind, table in ((ValueError, SHAPES), (ValueError, RANGES), (TypeError, DTYPES))
        for index, (call, *parts) in enumerate(table)
    ],
)
def test_error_names_argument_expected_got_and_way_out(kind, call, parts):
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(parts[0])
    found = [message.find(part) for part in parts]
    assert min(found) >= 0 and found == sorted(found), (parts, message)
    assert ";" in message


def test_traced_values_have_no_range_yet():
    # A sweep of the discount stays one program; numbers are checked where they are numbers.
    sweep = jax.jit(lambda d: discounted_returns(VALUES, MASK, discount=d))
    assert not jnp.any(sweep(0.5)) and not jnp.any(sweep(1.5))


def test_good_values_at_the_ends_of_their_ranges_pass():
    for value in (0, 1, 0.0, 1.0, True):
        checks.check_range("x", value, 0.0, 1.0, hint="-")
    checks.check_positive("x", 1e-30, hint="-")
    checks.check_same_shape(a=VALUES, b=MASK)
    checks.check_masks(a=MASK)
