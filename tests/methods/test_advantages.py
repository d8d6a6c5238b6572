"""Advantages of turns: one suite over all functions."""

import dataclasses
import functools
from collections.abc import Callable

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.parts import credit
from tests import reference

NAN = float("nan")
ROWS, TURNS = 64, 4  # what every batch is padded to, so that a function compiles once
EVERY, SCALED = ("divide_by_std", "ddof", "eps"), ("ddof", "eps")


@dataclasses.dataclass(frozen=True)
class Member:
    """A function, its reference, and what may be asked of it."""

    ours: Callable
    expected: Callable
    options: tuple[str, ...]
    undiscounted: bool = False  # depth is not part of the return
    whole_batch: bool = False  # the baseline is not that of the group


def gtpo(normalize, over: str, **facts) -> Member:
    return Member(
        functools.partial(methods.gtpo_advantages, discount=0.9, normalize=normalize),
        functools.partial(reference.gtpo, discount=0.9, over=over),
        EVERY,
        **facts,
    )


MEMBERS = {
    "gtpo": gtpo(credit.group, "group"),
    "gtpo_turn_index": gtpo(credit.turn_index, "index"),
    "gtpo_first_turn": gtpo(credit.first_turn, "first"),
    "gtpo_batch": gtpo(credit.batch, "batch", whole_batch=True),
    "grpo": Member(methods.grpo_advantages, reference.grpo, EVERY, True),
    "dr_grpo": Member(methods.dr_grpo_advantages, reference.dr_grpo, (), True),
    "rloo": Member(methods.rloo_advantages, reference.rloo, (), True),
    "mt_grpo": Member(methods.mt_grpo_advantages, reference.mt_grpo, SCALED, True),
    "reinforce_plus_plus": Member(
        methods.reinforce_pp_advantages,
        reference.reinforce_plus_plus,
        SCALED,
        undiscounted=True,
        whole_batch=True,
    ),
    "reinforce_plus_plus_baseline": Member(
        methods.reinforce_pp_baseline_advantages,
        reference.reinforce_plus_plus_baseline,
        SCALED,
        True,
    ),
}
OPTIONS = {"ddof": 1, "eps": 0.1, "divide_by_std": False}
FAST = ("gtpo", "grpo", "rloo")
each = pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in MEMBERS],
)
some = pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.long) for n in MEMBERS],
)


@functools.cache
def jitted(name: str, options: tuple):
    return jax.jit(functools.partial(MEMBERS[name].ours, **dict(options)))


def facts(rows, groups, included=None, *, fill=0.0):
    """Arguments padded to `[ROWS, TURNS]`: excluded rows without turns fill up."""
    spare = ROWS - len(rows)
    included = [True] * len(rows) if included is None else list(included)
    rewards, mask = reference.padded([*rows, *[[]] * spare], TURNS, fill=fill)
    groups = jnp.asarray([*groups, *[0] * spare], jnp.int32)
    return rewards, mask, groups, jnp.asarray([*included, *[False] * spare], bool)


def call(name, rows, groups, included=None, *, fill=0.0, **options):
    """The advantages of the given rows; of the rows that fill up they are 0."""
    out = np.asarray(
        jitted(name, tuple(options.items()))(*facts(rows, groups, included, fill=fill))
    )
    assert not np.any(out[len(rows) :])
    return out[: len(rows)]


def test_suite_holds_every_advantage_function():
    tested = {getattr(m.ours, "func", m.ours) for m in MEMBERS.values()}
    ours = {getattr(methods, n) for n in dir(methods) if n.endswith("_advantages")}
    assert tested == ours


@pytest.mark.parametrize(
    "name, option",
    [
        pytest.param(name, option, marks=[pytest.mark.slow] if option and name != "gtpo" else [])
        for name, m in MEMBERS.items()
        for option in (None, *m.options)
    ],
)
def test_advantages_of_ragged_groups_match_the_reference(name, option):
    # A fifth of the rows are excluded, and two have no turns.
    options = {} if option is None else {option: OPTIONS[option]}
    for seed in (3, 4):
        rows, groups, included = reference.ragged_batch(
            np.random.default_rng(seed), rows=14, width=TURNS, groups=3
        )
        rows[2], rows[9] = [], []
        out = call(name, rows, groups, included, **options)
        expected = MEMBERS[name].expected(rows, groups, included, **options)
        # float32 against float64; advantages are of order one.
        chex.assert_trees_all_close(out, reference.padded(expected, TURNS)[0], rtol=2e-5, atol=1e-5)


@pytest.mark.slow
@some
def test_advantages_eager_equal_jit(name):
    rows, groups, included = reference.ragged_batch(
        np.random.default_rng(3), rows=14, width=TURNS, groups=3
    )
    eager = MEMBERS[name].ours(*facts(rows, groups, included))[:14]
    chex.assert_trees_all_close(eager, call(name, rows, groups, included), atol=1e-6)


@pytest.mark.parametrize(
    "name, winner, loser",
    [
        *[(name, 1.7320508, -0.5773503) for name, m in MEMBERS.items() if m.options],
        ("dr_grpo", 0.75, -0.25),
        ("rloo", 1.0, -1 / 3),
    ],
)
def test_advantages_of_one_success_in_four_pin_ddof(name, winner, loser):
    # The population's deviation is the default.
    one = ([[1.0], [0.0], [0.0], [0.0]], [0] * 4)
    np.testing.assert_allclose(call(name, *one)[:, 0], [winner] + [loser] * 3, atol=1e-5)
    if MEMBERS[name].options:
        sample = call(name, *one, ddof=1)[:, 0]
        np.testing.assert_allclose(sample, [1.5] + [-0.5] * 3, atol=1e-5)


@each
@hypothesis.settings(max_examples=25)
@hypothesis.given(
    size=st.integers(1, ROWS - 2),
    reward=st.floats(0.001, 1.0),
    scale=st.sampled_from([1.0, -1.0, 10.0, 1000.0]),
)
def test_advantages_of_equal_returns_are_exactly_zero(name, size, reward, scale):
    # Also while another group has something to tell, where the baseline is the group's.
    reward *= scale
    rows, groups = [[reward]] * size, [0] * size
    if not MEMBERS[name].whole_batch:
        rows, groups = [*rows, [0.0], [scale]], [*groups, 1, 1]
    out = call(name, rows, groups)
    assert not np.any(out[:size])
    assert np.all(out[size:, 0] != 0)


@each
@hypothesis.settings(max_examples=10)
@hypothesis.given(size=st.integers(2, ROWS), scale=st.sampled_from([1.0, 10.0, 1000.0]))
def test_advantages_of_sums_equal_up_to_rounding_are_exactly_zero(name, size, scale):
    # .1 + .2 + 1 in another order is another float. Only where a trajectory has one value.
    if name in ("grpo", "dr_grpo", "rloo", "reinforce_plus_plus_baseline"):
        rng = np.random.default_rng(size)
        rows = [list(scale * rng.permutation([0.1, 0.2, 1.0])) for _ in range(size)]
        assert not np.any(call(name, rows, [0] * size))


@each
def test_advantage_of_a_lone_single_turn_is_zero(name):
    # Neither the raw reward nor NaN; `included` False turns a pair into a singleton.
    lone = ([[5.0], [5.0], [-3.0]], [0, 1, 1], [True, True, False])
    for option in (None, *MEMBERS[name].options):
        options = {} if option is None else {option: OPTIONS[option]}
        assert not np.any(call(name, *lone, **options))


@each
def test_advantage_of_a_lone_trajectory_is_zero_unless_the_batch_is_the_baseline(name):
    # A group of one has no baseline of its own.
    out = call(name, [[5.0], [1.0], [0.0]], [0, 1, 1])
    assert (out[0, 0] > 0) if MEMBERS[name].whole_batch else (out[0, 0] == 0)


@pytest.mark.slow
@some
def test_advantages_of_a_group_no_larger_than_ddof_are_zero(name):
    # Two entries and ddof 2 leave no degree of freedom, and no deviation to divide by.
    if MEMBERS[name].options:
        assert not np.any(call(name, [[1.0], [0.0]], [0, 0], ddof=2))


@each
def test_advantages_with_excluded_rows_equal_those_without_them(name):
    # A void trajectory is neither a zero in the baseline nor trained on, NaN included.
    kept = [[0.0, 1.0], [0.2, 0.0], [-0.1, 0.4]]
    mixed = [kept[0], [NAN, NAN], kept[1], [7.0, 9.0], kept[2], [], [NAN, 1.0], [3.0, 2.0]]
    included = [True, False, True, False, True, True, False, False]
    out = call(name, mixed, [0] * 6 + [1] * 2, included)
    chex.assert_trees_all_close(out[[0, 2, 4]], call(name, kept, [0] * 3), rtol=1e-6)
    chex.assert_trees_all_equal(out[[1, 3, 5, 6, 7]], np.zeros((5, TURNS), np.float32))


@pytest.mark.slow
@some
def test_advantages_with_nan_in_padded_turns_are_unchanged(name):
    rows, groups = [[0.1, 1.0], [0.3], [0.0, 0.0]], [0, 0, 0]
    clean, filled = call(name, rows, groups), call(name, rows, groups, fill=NAN)
    chex.assert_trees_all_equal(filled, clean)
    narrow = MEMBERS[name].ours(*(x[:3, :2] if x.ndim == 2 else x[:3] for x in facts(rows, groups)))
    chex.assert_trees_all_close(narrow, clean[:, :2], atol=1e-6)


@each
@hypothesis.settings(max_examples=20)
@hypothesis.given(
    seed=st.integers(0, 5), rows=st.permutations(range(10)), names=st.permutations(range(10))
)
def test_advantages_of_permuted_rows_and_renamed_groups_are_permuted(name, seed, rows, names):
    rewards, groups, included = reference.ragged_batch(
        np.random.default_rng(seed), rows=10, width=TURNS, groups=3
    )
    order = np.array(rows)
    before = call(name, rewards, groups, included)
    renamed = np.array(names)[groups[order]]
    after = call(name, [rewards[i] for i in order], renamed, included[order])
    # Sums run in another order.
    chex.assert_trees_all_close(after, before[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name, long, short",
    [
        # Returns 1, 1, 1 and 0: the mean of the turns is 3/4, that of the trajectories 1/2.
        ("gtpo", [0.25, 0.25, 0.25], -0.75),
        ("gtpo_batch", [0.25, 0.25, 0.25], -0.75),
        ("gtpo_first_turn", [0.5, 0.5, 0.5], -0.5),
        ("gtpo_turn_index", [0.5, 0.0, 0.0], -0.5),
        ("grpo", [0.5, 0.5, 0.5], -0.5),
        ("dr_grpo", [0.5, 0.5, 0.5], -0.5),
        ("rloo", [1.0, 1.0, 1.0], -1.0),
        # These divide by a deviation: 1/2 of the trajectories, √3/4 of the turns.
        ("mt_grpo", [1.0, 1.0, 1.0], -1.0),
        ("reinforce_plus_plus", [0.5773503] * 3, -1.7320508),
        ("reinforce_plus_plus_baseline", [1.0, 1.0, 1.0], -1.0),
    ],
)
def test_advantages_weigh_turns_or_trajectories_as_stated(name, long, short):
    # A trajectory of more turns must not weigh more unless stated.
    options = {"divide_by_std": False} if "divide_by_std" in MEMBERS[name].options else {}
    if "gtpo" in name:
        options["discount"] = 1.0
    out = call(name, [[0.0, 0.0, 1.0], [0.0]], [0, 0], **options)
    np.testing.assert_allclose(out, [[*long, 0.0], [short, 0.0, 0.0, 0.0]], atol=1e-5)


@each
@pytest.mark.parametrize("shift", [-3.0, 0.7])
def test_advantages_of_shifted_outcomes_are_unchanged(name, shift):
    rows = [[x] for x in (1.0, 0.0, 0.4, 0.1)]
    if MEMBERS[name].undiscounted:
        rows = [[0.2], [0.1, 0.0], [0.0, 0.3, 0.4], [0.1, 0.6]]
    shifted = [[*row[:-1], row[-1] + shift] for row in rows]
    before, after = call(name, rows, [0] * 4), call(name, shifted, [0] * 4)
    chex.assert_trees_all_close(after, before, atol=1e-5)


@each
def test_advantages_of_scaled_rewards_are_unchanged_by_the_deviation(name):
    rows, groups, included = reference.ragged_batch(
        np.random.default_rng(5), rows=8, width=3, groups=2
    )
    scaled = [[100.0 * x for x in row] for row in rows]
    factor = 1.0 if MEMBERS[name].options else 100.0
    # eps weighs in with 1e-6 of a deviation of order one.
    before, after = call(name, rows, groups, included), call(name, scaled, groups, included)
    chex.assert_trees_all_close(after, factor * before, atol=1e-4 * factor)


@pytest.mark.slow
@some
def test_advantages_carry_no_gradient(name):
    rewards, *rest = facts([[0.0, 1.0], [0.3], [0.2, 0.1]], [0] * 3)
    function = jitted(name, ())
    gradient = jax.grad(lambda r: jnp.sum(function(r, *rest) ** 2))(rewards)
    chex.assert_trees_all_equal(gradient, jnp.zeros_like(rewards))


@pytest.mark.slow
@some
def test_advantages_under_vmap_equal_a_loop(name):
    batches = [
        facts(*reference.ragged_batch(np.random.default_rng(s), rows=9, width=TURNS, groups=3))
        for s in range(3)
    ]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches)
    loop = jnp.stack([jitted(name, ())(*batch) for batch in batches])
    chex.assert_trees_all_close(jax.jit(jax.vmap(MEMBERS[name].ours))(*stacked), loop, atol=1e-5)


@pytest.mark.parametrize(
    "name, argument, values",
    [
        ("gtpo", "discount", (0.0, 0.3, 1.0)),
        ("gtpo", "eps", (0.0, 1e-3)),
        ("reinforce_plus_plus", "discount", (0.0, 0.3, 1.0)),
        ("mt_grpo", "turn_weight", (0.0, 0.5, 1)),
    ],
)
def test_sweeping_a_hyperparameter_compiles_once(name, argument, values):
    batch = reference.ragged_batch(np.random.default_rng(1), rows=9, width=TURNS, groups=2)
    sweep = jax.jit(lambda x, value: MEMBERS[name].ours(*x, **{argument: value}))
    for value in values:
        out = sweep(facts(*batch), jnp.float32(value))[:9]
        expected = MEMBERS[name].expected(*batch, **{argument: value})
        chex.assert_trees_all_close(out, reference.padded(expected, TURNS)[0], rtol=2e-5, atol=1e-5)
    assert sweep._cache_size() == 1
