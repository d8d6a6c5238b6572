"""One suite over the methods that choose problems, or divide rollouts among them."""

import functools
import importlib
import itertools
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.parts import prompts
from gtpo_jax.parts.prompts import Outcomes, Proposal
from tests.golden.loader import golden, load
from tests.methods.prompts_choices import PROBLEMS, SIZE, WANTED, Row

TABLE: dict[str, Row] = {
    name: row
    for path in sorted(pathlib.Path(__file__).parent.glob("prompts_*.py"))
    for name, row in importlib.import_module(f"tests.methods.{path.stem}").ROWS.items()
}
CHOOSERS = [name for name, row in TABLE.items() if row.first]
POOLED = [name for name, row in TABLE.items() if row.first or len(row.after) > 1]
DRAWS = 4000
STEP = 5  # past the first bucket

# Problem 4 has an outcome too few for the window; all have been tried.
RIGHT = np.array([0, 1, 3, 4, 2, 5])
WRONG = np.array([6, 4, 3, 2, 1, 0])
FURTHER = np.array([0.5, 0.25, 0.75, 1.0, 0.5, 0.25])


def outcomes(**changes):
    """All problems were tried, in another order than that of their numbers."""
    order = np.array([3, 0, 5, 1, 4, 2])
    fields = {
        "problems": order.astype(np.int32),
        "tried": np.ones(PROBLEMS, bool),
        "sampled": (RIGHT + WRONG + 1)[order],
        "included": (RIGHT + WRONG)[order],
        "successes": RIGHT[order],
        "further": {name: FURTHER[order] for name in ("text_diversity", "length")},
    }
    return jax.tree.map(jnp.asarray, Outcomes(**(fields | changes)))


def needed(part, found):
    names = [outcome.name for outcome in part.outcomes]
    return found._replace(further={name: found.further[name] for name in names})


@functools.cache
def part_of(name, neutral=False):
    row = TABLE[name]
    return row.make(name, row.neutral if neutral else None).prompts


@functools.cache
def programs(name, neutral=False):
    """The state that saw `outcomes`, the proposals of many keys from it, and `observe`."""
    part = part_of(name, neutral)
    propose = functools.partial(part.propose, wanted=WANTED, rounds=1, group_size=SIZE)
    keys = jax.random.split(jax.random.key(7), DRAWS)
    observe = jax.jit(part.observe)
    state = observe(part.init(PROBLEMS), needed(part, outcomes()))
    drawn = jax.jit(jax.vmap(propose, (None, 0, None)))(state, keys, jnp.int32(STEP))
    return state, jax.tree.map(np.asarray, drawn), observe


def test_table_holds_every_relative():
    assert set(TABLE) <= set(methods.MODIFIERS)


@pytest.mark.parametrize("name", POOLED)
def test_problems_of_a_round_differ_and_sizes_add_up_to_the_budget(name):
    _, drawn, _ = programs(name)
    ordered = np.sort(drawn.problems, axis=1)
    assert drawn.problems.dtype == drawn.group_sizes.dtype == np.int32
    assert ordered.min() >= 0 and ordered.max() < PROBLEMS and np.all(np.diff(ordered) > 0)
    assert np.all(drawn.group_sizes.sum(1) == WANTED * SIZE) and drawn.group_sizes.min() >= 1
    assert drawn.group_sizes.max() <= part_of(name).largest(WANTED, SIZE)


@pytest.mark.parametrize("name", CHOOSERS)
def test_first_problem_has_its_stated_probability(name):
    _, drawn, _ = programs(name)
    first = TABLE[name].first
    assert first is not None
    stated = first(RIGHT, WRONG, FURTHER)
    found = np.bincount(drawn.problems[:, 0], minlength=PROBLEMS) / DRAWS
    error = np.sqrt(stated * (1 - stated) / DRAWS)
    np.testing.assert_array_less(np.abs(found - stated), 5 * error + 1e-4)


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.neutral is not None])
def test_neutral_options_draw_uniformly(name):
    _, drawn, _ = programs(name, True)
    for place in (0, WANTED - 1):
        found = np.bincount(drawn.problems[:, place], minlength=PROBLEMS) / DRAWS
        share = 1 / PROBLEMS
        assert np.abs(found - share).max() < 5 * np.sqrt(share * (1 - share) / DRAWS)


@pytest.mark.parametrize("name", POOLED)
def test_untried_and_unknown_problems_change_nothing(name):
    part, (state, _, observe) = part_of(name), programs(name)
    idle = outcomes(
        tried=np.arange(PROBLEMS) % 2 == 0,
        included=np.where(np.arange(PROBLEMS) % 2 == 0, 0, 9),
        successes=np.where(np.arange(PROBLEMS) % 2 == 0, 0, 9),
        further={name: np.full(PROBLEMS, 99.0) for name in ("text_diversity", "length")},
    )
    after = observe(state, needed(part, idle))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    if name == "mmr1":  # which counts steps
        after = after._replace(steps=state.steps)
    chex.assert_trees_all_close(after, state)


def test_eager_and_compiled_are_the_same_and_later_rounds_go_on():
    part, (state, drawn, _) = part_of("knapsack"), programs("knapsack")
    key = jax.random.split(jax.random.key(7), DRAWS)[0]
    both = part.propose(state, key, STEP, wanted=WANTED, rounds=2, group_size=SIZE)
    first = Proposal(both.problems[:WANTED], both.group_sizes[:WANTED])
    chex.assert_trees_all_equal(first, jax.tree.map(lambda x: x[0], drawn))
    assert set(both.problems.tolist()) == set(range(PROBLEMS))
    assert both.group_sizes.reshape(2, -1).sum(1).tolist() == [WANTED * SIZE] * 2


@pytest.mark.parametrize("name", CHOOSERS)
def test_endless_source_and_too_few_problems_are_refused(name):
    part = part_of(name)
    with pytest.raises(ValueError, match=r"set train\.pool"):
        part.init(None)
    propose = functools.partial(part.propose, wanted=WANTED, rounds=1, group_size=SIZE)
    with pytest.raises(ValueError, match="tries 4 different problems, and there are 3"):
        jax.eval_shape(propose, part.init(3), jax.random.key(0), 0)
    with pytest.raises(ValueError, match="chooses problems, and the method does so already"):
        methods.chain(methods.grpo(), methods.uniform_prompts(), methods.MODIFIERS[name]())


def test_decays_pull_counts_to_the_prior():
    part = prompts.thompson(prior=1.0, met=0.5, others=0.75)
    first = part.observe(part.init(PROBLEMS), outcomes(further={}))
    tried = np.array([1, 1, 0, 0, 0, 0], bool)  # problems 3 and 0
    second = part.observe(first, outcomes(tried=tried, further={}))
    keep = np.where(np.isin(np.arange(PROBLEMS), [0, 3]), 0.5, 0.75)
    news = np.isin(np.arange(PROBLEMS), [0, 3])
    np.testing.assert_allclose(first.right, 1 + RIGHT)
    np.testing.assert_allclose(second.right, 1 + keep * RIGHT + news * RIGHT)
    np.testing.assert_allclose(second.wrong, 1 + keep * WRONG + news * WRONG)


def test_scores_are_refreshed_after_some_steps():
    part = prompts.by_variance(every=3)
    begun = state = part.init(PROBLEMS)
    found = needed(part, outcomes())
    for _ in range(2):
        state = part.observe(state, found)
        np.testing.assert_array_equal(state.scores, begun.scores)
    state = part.observe(state, found)
    rates = RIGHT / (RIGHT + WRONG)
    np.testing.assert_allclose(state.scores, 0.5 * rates * (1 - rates) + 0.5 * FURTHER, rtol=1e-6)


def brute_force(rates, size, lowest, highest):
    """The highest total value of any division, in float64."""

    def value(sizes):
        n, p = np.array(sizes, float), np.array(rates)
        return np.sum((1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2)

    budget = size * len(rates)
    free = itertools.product(range(lowest, highest + 1), repeat=len(rates) - 1)
    divided = [(*head, budget - sum(head)) for head in free]
    return max(value(s) for s in divided if lowest <= s[-1] <= highest), value


@functools.cache
def allocation(**options):
    return jax.jit(functools.partial(prompts.allocate, **options))


def test_allocation_is_the_best_of_all_divisions():
    allocate = allocation(group_size=4, lowest=1, highest=10, confidence=None)
    rng = np.random.default_rng(0)
    drawn = np.concatenate([rng.random((24, 3)), [[0.5, 0.5, 0.5], [0.01, 0.99, 0.3]]])
    sizes = jax.vmap(allocate)(jnp.asarray(drawn), jnp.ones(drawn.shape, bool))
    for rates, found in zip(drawn, np.asarray(sizes), strict=True):
        best, value = brute_force(rates, 4, 1, 10)
        assert found.sum() == 12 and found.min() >= 1 and found.max() <= 10
        assert value(found) == pytest.approx(best, abs=1e-8)


def test_allocation_of_the_worked_example():
    found = prompts.rollout_value(jnp.array([2, 3, 4] * 2), jnp.array([0.5] * 3 + [0.1] * 3))
    printed = [0.0625, 0.0938, 0.1094, 0.0146, 0.0219, 0.0278]
    np.testing.assert_allclose(found, printed, atol=6e-5)
    both = allocation(group_size=3, confidence=None)
    assert both(jnp.array([0.5, 0.1]), jnp.ones(2, bool)).tolist() == [4, 2]
    np.testing.assert_allclose(
        prompts.information(jnp.array([0.1, 1 / 3, 0.5, 0.9])),
        [0.081, 0.148148, 0.125, 0.009],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("rates", "seen", "sizes"),
    [
        ((0.5, 0.5, 0.0, 0.0), (1, 1, 1, 1), [4, 4, 8, 8]),  # .5 is known well enough with 4
        ((1.0, 1.0, 1.0, 0.0), (1, 1, 1, 1), [2, 2, 2, 18]),
        ((1.0, 1.0, 1.0, 1.0), (1, 1, 1, 1), [6, 6, 6, 6]),
        ((0.5, 0.5, 0.5, 0.5), (0, 0, 0, 0), [6, 6, 6, 6]),
        ((0.3, 0.9, 0.0, 0.0), (0, 0, 1, 1), [6, 6, 6, 6]),  # without a visit: as many as asked
    ],
)
def test_rules_beside_the_maximum(rates, seen, sizes):
    found = allocation(group_size=6)(jnp.array(rates), jnp.array(seen, bool))
    assert found.tolist() == sizes


def test_budgets_out_of_range_are_refused():
    with pytest.raises(ValueError, match="lowest <= group size <= highest"):
        prompts.allocate(jnp.ones(2), jnp.ones(2, bool), group_size=3, lowest=4)


@pytest.mark.parametrize("case", load("knapsack"))
def test_allocation_is_that_of_the_public_code_or_better(case):
    inputs, expected = golden("knapsack", case)
    rates, theirs = np.array(inputs.pop("rates")), expected["sizes"]
    found = allocation(confidence=None, **inputs)(jnp.asarray(rates), jnp.ones(len(rates), bool))
    if case == "rare":
        # The public code counts the least number of rollouts as worth nothing.
        _, value = brute_force(rates, 8, 2, 20)
        assert value(np.array(found)) > value(theirs)
    else:
        assert found.tolist() == theirs.tolist()


@pytest.mark.parametrize("case", load("mmr1"))
def test_scores_and_diversity_are_those_of_the_public_code(case):
    inputs, expected = golden("mmr1", case)
    if "sequences" in inputs:
        assert prompts.distinct(inputs["sequences"]) == pytest.approx(expected["distinct"])
    else:
        a, b = inputs["weights"]
        found = prompts.promotion_score(
            jnp.asarray(inputs["rates"]),
            jnp.asarray(inputs["diversity"]),
            outcome_weight=a,
            diversity_weight=b,
        )
        np.testing.assert_allclose(found, expected["scores"], rtol=1e-6)


@pytest.mark.parametrize("case", ["hand", "random_5"])
def test_weights_of_single_stream_are_those_of_the_public_code(case):
    inputs, expected = golden("spo", case)
    right, wrong = np.array(inputs["alpha"]), np.array(inputs["beta"])
    found = prompts.deviation_weights(jnp.asarray(right / (right + wrong)))
    np.testing.assert_allclose(found, expected["weights"], rtol=1e-5)
