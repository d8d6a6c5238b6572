"""Plans that fork, on numbers that can be checked by hand."""

import dataclasses

import jax
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.parts import plans
from gtpo_jax.parts.plans import Moment, at_moment
from gtpo_jax.parts.plans.lookahead import (
    Place,
    edit_distance,
    forks,
    forks_here,
    says_the_same,
    taken,
    written_from,
)
from gtpo_jax.parts.plans.tree import branches_here, early_entropy
from gtpo_jax.types import Candidates, StopReason, Turn, Verdict
from tests.golden.loader import load
from tests.methods.plan_relatives import (
    FakeRun,
    calling,
    constant,
    credit_of,
    group_of,
    problem,
    well_formed,
)


def same(method):
    return method


def test_remax_subtracts_the_reward_of_the_greedy_twin():
    for greedy, expected in (("R", [0, -1, -1]), ("W", [1, 0, 0]), ("U", [0, 0, 0])):
        method, group, run = group_of(same, calling(f"RWW{greedy}"), size=3, base=methods.remax())
        assert [r.temperature for r in run.requests] == [1.0, 1.0, 1.0, 0.0]
        assert [t.trained for t in group] == [True, True, True, False]
        advantages = credit_of(method, well_formed(group))
        np.testing.assert_allclose(advantages, [*expected, 0], atol=1e-6)
        # The twin is in no row, whatever its outcome.
        batch = packing.pack(
            group, np.ones((4, 4), np.float32), micro_batches=1, rows=3, row_length=256
        )
        assert 3 not in batch.trajectory_ids


def with_entropies(trajectory, values):
    """Each turn with equal entropies of its tokens."""
    turns = [
        dataclasses.replace(turn, entropies=np.full(len(turn.tokens), value, np.float32))
        for turn, value in zip(trajectory.turns, values, strict=True)
    ]
    return dataclasses.replace(trajectory, turns=tuple(turns))


@pytest.mark.parametrize(
    ("draw", "rise", "branches"),
    [
        # The rule of the authors' code: u − weight · ΔH, cut to [0, 1], is at most the probability.
        (0.40, 0.0, True),
        (0.60, 0.0, False),
        (0.60, 0.6, True),  # .60 − .2 · .6 = .48
        (0.60, 0.4, False),  # .52
        (0.45, -0.4, False),  # .53
        (0.99, 9.0, True),  # cut to 0
    ],
)
def test_arpo_branches_where_entropy_rises(draw, rise, branches):
    assert branches_here(draw, rise, probability=0.5, weight=0.2) is branches


def test_arpo_branches_as_the_authors_code_does():
    case = load("arpo")["branches"]
    given = case["inputs"]
    for index, branch in enumerate(case["outputs"]["branch"]):
        found = branches_here(
            given["draw"][index],
            given["entropy_now"][index] - given["entropy_init"][index],
            probability=given["branch_probability"][index],
            weight=given["entropy_weight"][index],
        )
        assert found == bool(branch)


@pytest.mark.parametrize("name", ["forks defaults", "forks math"])
def test_latr_forks_as_the_authors_code_does(name):
    case = load("latr")[name]
    first, second = np.array(case["inputs"]["probs"]).T
    least, gap = (case["inputs"][f"prob_filter_{kind}_thres"] for kind in ("abs", "rel"))
    found = forks_here(first, second, least=least, gap=gap)
    np.testing.assert_array_equal(found, np.array(case["outputs"]["mask"]) > 0)


def test_latr_drops_branches_as_the_authors_code_does():
    case = load("latr")["pruned"]
    steps, distance = case["inputs"]["rollout_filter_steps"], case["inputs"]["edit_dist_thres"]
    found = [
        says_the_same(np.array([*branch, 0]), np.array(parent), steps=steps, distance=distance)
        for branch, parent in zip(case["inputs"]["branch"], case["inputs"]["parent"], strict=True)
    ]
    assert found == [bool(removed) for removed in case["outputs"]["removed"]]


def test_early_entropy_is_a_sum_over_the_first_written_tokens():
    turn = Turn(
        tokens=np.zeros(5, np.int32),
        logprobs=np.zeros(5, np.float32),
        entropies=np.array([9, 1, 2, 3, 9], np.float32),
        text="",
        given=1,
    )
    assert early_entropy(turn, window=3, vocabulary=100) == pytest.approx(6 / np.log(100))
    assert early_entropy(turn, window=20, vocabulary=100) == pytest.approx(15 / np.log(100))


class Deep(FakeRun):
    """Trajectories of three turns, the second of which the policy is unsure of."""

    def answer(self, request):
        made = super().answer(dataclasses.replace(request, turns=()))
        [*_, last] = made.turns
        called = [turn for turn in made.turns[:-1]] or [CALLED]
        turns = (*request.turns, *[*called, *called, last][len(request.turns) :])
        made = dataclasses.replace(made, turns=turns, shared_turns=len(request.turns))
        return with_entropies(made, [0.5, 9.0, 0.5])


CALLED = Turn(
    tokens=np.ones(3, np.int32),
    logprobs=np.zeros(3, np.float32),
    text="call",
    observation=np.ones(1, np.int32),
)


def played(plan, size, run):
    """Groups of a plan, and the requests of each of its rounds."""
    episodes, rounds = at_moment(plan, run.moment)(problem("a"), 0, size), []
    requests = next(episodes)
    while True:
        rounds.append(requests)
        try:
            requests = episodes.send(run(requests)[0])
        except StopIteration as done:
            return done.value, rounds


def test_tree_branches_before_uncertain_turns_first_and_fills_the_rest():
    always = plans.tree(trunks=2, beam=2, probability=0.5, weight=100.0, vocabulary=100)
    group, rounds = played(always, 8, Deep(Moment(), constant("R")))
    assert [t.sample for t in group] == list(range(8))
    # Before the second turn entropy rises by far, so both trunks branch; before the third it does
    # not rise above the first turn, so there it is a matter of chance.
    branches = [len(r.turns) for r in rounds[1]]
    assert branches[:2] == [1, 1] and set(branches[2:]) <= {2}
    for part in rounds[1:]:
        assert all(r.turns for r in part) or not any(r.turns for r in part)
    never = plans.tree(trunks=2, probability=0.0, weight=-100.0)
    group, rounds = played(never, 5, Deep(Moment(), constant("R")))
    assert [len(part) for part in rounds] == [2, 3] and not any(r.turns for r in rounds[1])


def test_vine_credits_turns_with_the_change_of_the_value():
    def verdict(request, draw):
        # From the prompt one of four succeeds, after the first turn three of four.
        if request.sample < 2:
            return "RW"[request.sample]
        # The first four of them are those of the prompt.
        number = request.sample % 4
        return "R" if number < (3 if request.sample >= 6 else 1) else "W"

    method = methods.vine(rollouts=4)
    run = Deep(Moment(), verdict)
    group, rounds = played(method.plan, 2, run)
    assert len(rounds) == 2 and len(rounds[1]) == 4 * (1 + 2 * 2)
    assert len({r.sample for part in rounds for r in part}) == 2 + len(rounds[1])
    known = [t.facts["turn_values"] for t in group]
    np.testing.assert_allclose(known, [[0.25, 0.75, 0.75]] * 2)
    batch = packing.episode_batch(well_formed(group), max_turns=4, needs=method.facts)
    assign = jax.jit(lambda batch: methods.assign(method, method.credit.init(), batch)[1])
    found = np.asarray(assign(batch).advantages)
    np.testing.assert_allclose(found, [[0.5, 0, 0.25, 0], [0.5, 0, -0.75, 0]], atol=1e-6)
    # The sum over turns is the outcome minus the value of the prompt.
    np.testing.assert_allclose(np.sum(found, axis=1), [0.75, -0.25], atol=1e-6)


def test_vine_takes_the_value_of_before_where_no_outcome_is_known():
    def verdict(request, draw):
        return "U" if request.sample > 2 else "W" if request.sample == 2 else "R"

    [member], _ = played(plans.valued(rollouts=2), 1, Deep(Moment(), verdict))
    np.testing.assert_allclose(member.facts["turn_values"], [0.5, 0.5, 0.5])


def test_latr_branches_at_close_decisions():
    # The worked example: p1 .4, p2 .3 branches, p1 .6, p2 .3 does not.
    found = forks_here(np.array([0.4, 0.6, 0.4]), np.array([0.3, 0.3, 0.2]), least=0.25, gap=0.15)
    assert found.tolist() == [True, False, False]


def rehearsed(tokens, chances, seconds, **fields):
    """A turn with its two likeliest candidates."""
    tokens = np.array(tokens, np.int32)
    ids = np.stack([tokens, np.array(seconds, np.int32)], axis=1)
    return Turn(
        tokens=tokens,
        logprobs=np.log(np.array(chances, np.float32))[:, 0],
        entropies=np.ones(len(tokens), np.float32),
        candidates=Candidates(ids, np.log(np.array(chances, np.float32))),
        text="",
        **fields,
    )


CLOSE, CLEAR = (0.4, 0.3), (0.6, 0.3)


def of_turns(*turns):
    [made] = FakeRun(Moment(), constant("R"))([request()])[0]
    return dataclasses.replace(made, turns=turns, stop_reason=StopReason.ANSWERED)


def request(**fields):
    [asked] = next(plans.independent()(problem("a"), 0, 1))
    return dataclasses.replace(asked, **fields)


def test_latr_finds_forks_in_the_order_of_time_and_takes_the_second_token():
    first = rehearsed([5, 6], [CLEAR, CLOSE], [7, 8], observation=np.ones(2, np.int32))
    last = rehearsed([1, 2, 3], [CLOSE, CLEAR, CLOSE], [4, 4, 9])
    parent = of_turns(first, last)
    options = {"least": 0.25, "gap": 0.15}
    found = forks(parent, 3, Place(0, 0), **options)
    assert [(f.time, f.place) for f in found] == [(1, (0, 1)), (2, (1, 0)), (4, (1, 2))]
    assert [f.place for f in forks(parent, 3, Place(1, 1), **options)] == [(1, 2)]
    turns, begun = taken(parent, Place(1, 2))
    assert turns == (first,) and begun.tokens.tolist() == [1, 2, 9]
    np.testing.assert_allclose(np.exp(begun.logprobs), [0.4, 0.6, 0.3], rtol=1e-6)
    assert written_from(parent, Place(0, 1)).tolist() == [6, 1, 2, 3]
    # A token that was drawn against the odds is no close decision.
    drawn = dataclasses.replace(last, tokens=np.array([4, 2, 3], np.int32))
    assert [f.place for f in forks(of_turns(drawn), 0, Place(0, 0), **options)] == [(0, 2)]


def test_edit_distance_and_pruning():
    assert edit_distance([1, 2, 3], [1, 2, 3]) == 0
    assert edit_distance([1, 2, 3, 4], [2, 3, 4]) == 1
    assert edit_distance([], [1, 2]) == 2
    assert edit_distance(list(b"kitten"), list(b"sitting")) == 3
    parent = np.arange(30)
    other = np.where(parent < 9, 99, parent)  # 9 of the first 20 differ, then none
    assert not says_the_same(other, parent, steps=(20,), distance=0.4)
    assert says_the_same(other, parent, steps=(20, 25), distance=0.4)  # 9 / 25 = .36
    assert not says_the_same(other[:20], parent, steps=(20, 25), distance=0.4)  # it has ended
    assert not says_the_same(other, parent, steps=(20, 25), distance=0.0)


def test_latr_grows_a_tree_and_replaces_branches_that_say_the_same():
    def run(requests):
        return [answer(request) for request in requests]

    def answer(request):
        # The branch at time 0 says what its parent says, the one at time 2 something else.
        if request.begun is None:
            tokens, chances = np.arange(40), [CLOSE, CLEAR, CLOSE, *[CLEAR] * 37]
        else:
            size = len(request.begun.tokens)
            rest = np.arange(size, 40) + (0 if size == 1 else 100)
            tokens, chances = np.concatenate([request.begun.tokens, rest]), [CLEAR] * 40
        turn = rehearsed(tokens, chances, np.full(40, 77))
        return dataclasses.replace(of_turns(turn), sample=request.sample, verdict=Verdict.RIGHT)

    episodes, rounds = plans.lookahead()(problem("a"), 0, 3), []
    requests = next(episodes)
    try:
        while True:
            rounds.append(requests)
            requests = episodes.send(run(requests))
    except StopIteration as done:
        group = done.value
    assert [[r.temperature for r in part] for part in rounds] == [[0.0], [0.0, 0.0], [1.0]]
    assert [r.begun.tokens.tolist() for r in rounds[1]] == [[77], [0, 1, 77]]
    assert [t.sample for t in group] == [0, 2, 3], "the first branch is dropped"
