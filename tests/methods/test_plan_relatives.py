"""One suite over methods whose plan is more than independent samples, with a fake rollout."""

import dataclasses
import functools
import importlib
import pathlib

import jax
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.parts import plans
from gtpo_jax.parts.plans import Moment, at_moment
from tests.methods import plan_relatives
from tests.methods.plan_relatives import Row, constant, play, problem

TABLE: dict[str, Row] = {
    name: row
    for path in sorted(pathlib.Path(__file__).parent.glob("plans_*.py"))
    for name, row in importlib.import_module(f"tests.methods.{path.stem}").ROWS.items()
}
each = pytest.mark.parametrize("name", TABLE)


@functools.cache
def made(name):
    return TABLE[name].make()


def told(request):
    """All that a request asks for, but for its group."""
    texts = [turn.text for turn in request.turns]
    fields = request.question, request.opening, request.script, request.temperature
    return request.problem.id, request.sample, texts, *fields


def content(trajectory):
    tokens = [turn.tokens.tolist() for turn in trajectory.turns]
    facts = sorted(trajectory.facts.items())
    return trajectory.sample, trajectory.prompt.tolist(), tokens, trajectory.verdict, facts


def requests_of(played, group):
    return [told(r) for r in played.run.requests if r.group == group]


def test_table_holds_modifiers_and_methods():
    assert {name.split()[0] for name in TABLE} <= {*methods.METHODS, *methods.MODIFIERS}


@each
def test_samples_are_distinct_and_within_the_capacities(name):
    row, plan = TABLE[name], made(name).plan
    played = play(row, made(name))
    for number, group in enumerate(played.groups):
        asked = [r.sample for r in played.run.requests if r.group == number]
        assert len(asked) == len(set(asked)) <= plan.sampled(row.size)
        assert 1 <= len(group) <= plan.returned(row.size)
        assert len({t.sample for t in group}) == len(group)
        assert all(t.group == number for t in group)
        assert plan.off_policy or not any(t.off_policy for t in group)


@each
def test_equal_moments_give_equal_groups_and_others_do_not(name):
    row = TABLE[name]
    first, again = play(row, made(name)), play(row, made(name))
    other = play(row, made(name), seed=1)
    found = [[list(map(content, group)) for group in p.groups] for p in (first, again, other)]
    assert found[0] == found[1] != found[2]
    assert list(map(told, first.run.requests)) == list(map(told, again.run.requests))


@each
def test_a_group_depends_on_no_other_group(name):
    row = TABLE[name]
    together, alone = play(row, made(name), "ab"), play(row, made(name), "a")
    assert requests_of(together, 0) == requests_of(alone, 0)
    assert list(map(content, together.groups[0])) == list(map(content, alone.groups[0]))


@each
def test_members_are_what_the_rollout_answered(name):
    row = TABLE[name]
    played = play(row, made(name))
    answered = {
        (t.group, t.sample): content(dataclasses.replace(t, facts={}))
        for t in map(played.run.answer, played.run.requests)
    }
    if not row.rewritten:
        for trajectory in (t for group in played.groups for t in group):
            bare = content(dataclasses.replace(trajectory, facts={}))
            assert bare == answered[trajectory.group, trajectory.sample]


@each
@pytest.mark.parametrize("letter", ["R", "W", "U"])
def test_degenerate_groups_have_finite_credit(name, letter):
    row, method = TABLE[name], made(name)
    played = play(row, method, verdict=constant(letter))
    found = [t for group in played.groups for t in group]
    gathered = [fact for fact in method.facts if fact.gather is not None]
    batch = packing.episode_batch(found, max_turns=4, needs=gathered)
    assert len(batch.included) == len(found)
    for fact in gathered:
        for leaf in jax.tree.leaves(batch.facts[fact.name]):
            assert np.isfinite(np.asarray(leaf, np.float64)).all(), fact.name
    if letter == "U" and not method.plan.off_policy:
        assert not batch.included.any()


@each
def test_a_group_of_one_works(name):
    row = TABLE[name]
    if made(name).plan.returned(1) >= 1 and row.size % 3:
        assert play(row, made(name), size=1).groups[0]


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.neutral])
def test_neutral_options_are_independent_samples(name):
    row = TABLE[name]
    plain = methods.grpo()
    assert row.neutral is not None
    one, other = play(row, row.neutral()), play(row, plain)
    assert list(map(told, one.run.requests)) == list(map(told, other.run.requests))
    for group, expected in zip(one.groups, other.groups, strict=True):
        assert [content(t)[:4] for t in group] == [content(t)[:4] for t in expected]


@pytest.mark.parametrize("name", [n for n in TABLE if plan_relatives.needs_of(made(n))])
def test_missing_services_are_named_before_any_rollout(name):
    with pytest.raises(ValueError, match=r"the plan needs the service '.*, the host provides none"):
        at_moment(made(name).plan, Moment())


@each
def test_a_second_plan_is_refused(name):
    if made(name).plan != plans.independent():
        with pytest.raises(ValueError, match="igrpo says which rollouts a problem gets"):
            methods.igrpo()(made(name))


def test_fields_that_a_problem_lacks_are_named():
    bare = dataclasses.replace(problem("a"), info={})
    for modifier, words in (
        (methods.scaf_grpo(), "fields knowledge, planning, solution .* has none"),
        (methods.guided_correction(), "the reference solution from the field 'solution'"),
        (methods.tempsamp(gold="turns"), "the gold turns from the field 'turns'"),
    ):
        with pytest.raises(ValueError, match=words):
            modifier(methods.grpo()).plan.check(bare)
