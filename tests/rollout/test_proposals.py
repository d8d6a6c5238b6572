"""Between rollouts: what the prompts of a method propose, and what they learn."""

import jax.numpy as jnp
import pytest

from gtpo_jax import methods, rollout
from gtpo_jax.parts.prompts import Outcome, Proposal, in_order, uniform
from gtpo_jax.rollout.proposals import Proposals, gather_outcomes
from gtpo_jax.tasks.generated import GeneratedTask
from gtpo_jax.tasks.pool import first_problems
from gtpo_jax.tasks.stream import Entry, entries_task
from gtpo_jax.types import Problem
from tests.rollout.test_dynamic import Script, problems, trajectory


def test_outcomes_count_the_included_trajectories_of_each_proposed_problem():
    tokens = Outcome("first", lambda group: 10.0 + group[0].sample, "")
    part = in_order()._replace(outcomes=(tokens,))
    endings = {"a": "RWU", "b": "TT", "other run": "RR"}
    given = [
        trajectory(ending, name, sample=sample)
        for name, text in endings.items()
        for sample, ending in enumerate(text)
    ]
    proposal = Proposal(jnp.array([7, 5, 4, 9]), jnp.array([3, 3, 2, 2]))
    found = gather_outcomes(part, proposal, ["c", "a", "b", "a"], given)
    assert found.problems.tolist() == [7, 5, 4, 9]
    assert found.tried.tolist() == [False, True, True, False]
    assert found.sampled.tolist() == [0, 3, 2, 0]
    assert found.included.tolist() == [0, 2, 0, 0]
    assert found.successes.tolist() == [0, 1, 0, 0]
    assert found.further["first"].tolist() == [0, 10, 0, 0]
    assert found.known.tolist() == [False, True, False, False]


def test_stream_goes_on_where_the_step_before_ended_and_a_pool_is_drawn_by_seed_and_step():
    stream = Proposals(in_order(rounds=2), wanted=3, group_size=2, seed=0)
    assert stream.propose((), 2).problems.tolist() == [12, 13, 14, 15, 16, 17]
    part = uniform()
    drawn = [
        Proposals(part, wanted=3, group_size=2, seed=seed).propose(part.init(50), step).problems
        for seed, step in ((0, 1), (0, 1), (0, 2), (1, 1))
    ]
    assert drawn[0].tolist() == drawn[1].tolist()
    assert drawn[0].tolist() not in (drawn[2].tolist(), drawn[3].tolist())


@pytest.mark.parametrize(
    ("numbers", "sizes", "error"),
    [([0, 1, 2], [2, 2, 2], "must give 2 problems"), ([0, -1], [2, 2], "from 0 on")],
)
def test_bad_proposals_are_refused(numbers, sizes, error):
    part = in_order()._replace(
        propose=lambda state, key, step, **_: Proposal(jnp.array(numbers), jnp.array(sizes))
    )
    with pytest.raises(ValueError, match=error):
        Proposals(part, wanted=2, group_size=2, seed=0).propose((), 0)


def test_groups_beyond_the_budget_are_dropped():
    script = Script({"0": "RW", "1": "RWWW", "2": "RW"})
    groups = rollout.collect_groups(
        script, problems("012"), wanted=3, group_size=[2, 4, 2], rounds=1, most=5
    )
    assert [t.problem.id for t in groups.kept] == ["0", "0", "2", "2"]
    assert (groups.groups_kept, groups.groups_dropped) == (2, 1)
    assert [t.group for t in groups.kept] == [0, 0, 1, 1]


class Repeating(GeneratedTask):
    """A source without end, in which problems come back."""

    def train_problem(self, index):
        return Problem(id=str(index // 2 % 5), question="", answer="")


def test_pool_holds_the_first_different_problems():
    assert [p.id for p in first_problems(Repeating(seed=0), 3)] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="has 5 different training problems among its first 600"):
        first_problems(Repeating(seed=0), 6)
    entries = [Entry(Problem(id=str(i), question=str(i), answer="")) for i in range(4)]
    task = entries_task(entries, [], seed=0)
    assert task.train_count == 4
    assert sorted(p.id for p in first_problems(task, 4)) == ["0", "1", "2", "3"]
    with pytest.raises(ValueError, match="lower it"):
        first_problems(task, 5)


def test_dynamic_sampling_goes_on_in_the_order_of_a_choice():
    chosen = methods.chain(methods.gtpo(), methods.vade(), methods.dynamic_sampling(rounds=3))
    swapped = methods.chain(methods.gtpo(), methods.dynamic_sampling(rounds=3), methods.vade())
    for method in (chosen, swapped):
        assert method.prompts.pooled and method.prompts.rounds == 3
        assert not method.prompts.has_signal([trajectory("R"), trajectory("R")])
