"""Plans that ask services of their host: other runs, and experiences; and the texts of plans."""

import dataclasses
import random

import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.parts import plans
from gtpo_jax.parts.plans import Moment
from gtpo_jax.parts.plans.experienced import Edit, extract
from gtpo_jax.parts.plans.swarm import draw
from gtpo_jax.parts.plans.texts import check_template, fill, said, shortened
from gtpo_jax.types import Verdict
from tests.golden.loader import load
from tests.methods.plan_relatives import (
    FakeRun,
    Row,
    after,
    calling,
    constant,
    credit_of,
    group_of,
    play,
    problem,
    turn,
    well_formed,
    write_answer,
)
from tests.methods.plans_hosted import Lessons, Others, external


@pytest.mark.parametrize("case", ["hand", "ties", "all_fail", "fewer", "random"])
def test_best_groups_are_those_of_genrl(case):
    data = load("sapo_swarm")[case]
    rewards, count = data["inputs"]["rewards"], data["inputs"]["count"]
    shared = [external(f"n{n}", claims) for n, claims in enumerate(rewards)]
    drawn = draw(shared, count, random.Random(0), "best")
    assert sorted(int(s.id[1:]) for s in drawn) == data["outputs"]["chosen"]


def test_best_groups_leave_out_equal_outcomes_where_genrl_does_not():
    data = load("sapo_swarm")["unanimous"]
    shared = [external(f"n{n}", c) for n, c in enumerate(data["inputs"]["rewards"])]
    drawn = draw(shared, data["inputs"]["count"], random.Random(0), "best")
    assert data["outputs"]["chosen"] == [0] and [s.id for s in drawn] == ["n1"]


def test_uniform_draws_are_uniform_and_without_replacement():
    shared = [external(f"n{n}", [0, 1]) for n in range(5)]
    counts = dict.fromkeys((s.id for s in shared), 0)
    draws = 3000
    for seed in range(draws):
        drawn = draw(shared, 2, random.Random(seed), "uniform")
        assert len({s.id for s in drawn}) == 2
        for s in drawn:
            counts[s.id] += 1
    error = 5 * np.sqrt(0.4 * 0.6 / draws)
    assert all(abs(count / draws - 0.4) < error for count in counts.values())


def swarm_step(others, verdict, names="abcd", **options):
    method = after(methods.sapo_swarm(**options))
    row = Row(lambda: method, services=lambda: {"swarm": others})
    return play(row, method, names, verdict=verdict)


def truth(request, draw):
    """Played again, a row is right if its text says so; own rows are right by chance."""
    if request.script:
        return "R" if "right" in request.script[0] else "W"
    return "RW"[request.sample % 2]


def test_external_groups_take_the_last_places_of_a_block_and_are_judged_again():
    honest = external("x/1", [1, 0], scripts=["right", "wrong"])
    liar = external("x/2", [1, 0], scripts=["wrong", "wrong too"])
    others = Others([honest, liar, external("x/3", [1, 1])])
    played = swarm_step(others, truth, local=2, external=2)
    ids = [group[0].problem.id for group in played.groups]
    assert ids[:2] == ["a", "b"] and "x/1" in ids[2:]
    # The other's claim of one success is wrong, so the local problem is sampled in its place.
    assert sorted(ids[2:])[0] in ("c", "d")
    foreign = next(group for group in played.groups if group[0].problem.id == "x/1")
    assert [t.success for t in foreign] == [True, False]
    assert all(t.off_policy and t.facts["external"] for t in foreign)
    assert [at for _, at, _ in others.given] == [n for n, i in enumerate(ids) if i != "x/1"]


def test_rows_of_others_join_a_group_of_the_same_problem():
    same = external("x/1", [1, 0, 1], question="qa {x}", scripts=["right", "wrong", "right"])
    others = Others([same])
    method = after(methods.sapo_swarm(local=1, external=0, joined=2))
    played = swarm_step(others, truth, "a", local=1, external=0, joined=2)
    [group] = played.groups
    assert [t.off_policy for t in group] == [False] * 4 + [True] * 2
    assert others.given == [(60, 0, [0, 1, 2, 3])]
    right = np.array([t.success for t in group], float)
    found = credit_of(method, well_formed(group))
    np.testing.assert_allclose(found, (right - right.mean()) / right.std(), atol=1e-4)


def test_without_others_a_swarm_is_its_parent():
    played = swarm_step(Others([]), truth)
    assert [group[0].problem.id for group in played.groups] == list("abcd")
    assert not any(t.off_policy for group in played.groups for t in group)


def test_experiences_are_in_the_prompt_and_unequal_groups_are_summarized():
    kept = Lessons(["check twice", "use the tool {}"])

    def summarize(problem, group, experiences):
        return [Edit("delete", index=len(experiences) - 1)]

    services = lambda: {"experiences": kept}  # noqa: E731
    modifier = methods.training_free_grpo(summarize=summarize)
    method, group, run = group_of(modifier, calling("RWRW"), services=services)
    assert run.requests[0].question.endswith("1. check twice\n2. use the tool {}")
    assert kept.edits == [(60, 0, [Edit("delete", index=1)])]
    assert not np.any(credit_of(method, group))
    method, group, _ = group_of(
        methods.training_free_grpo(update=True), calling("RWRW"), services=services
    )
    assert np.any(credit_of(method, well_formed(group)))
    kept.edits.clear()
    group_of(modifier, constant("W"), services=services)
    assert not kept.edits
    kept.list = []
    assert group_of(modifier, constant("W"), services=services)[2].requests[0].question is None


def test_the_extract_is_what_the_shortest_success_says_alone():
    answers = FakeRun(Moment(), constant("R")).answer(
        next(plans.independent()(problem("a"), 0, 1))[0]
    )

    def member(text, success):
        verdict = Verdict.RIGHT if success else Verdict.WRONG
        return dataclasses.replace(answers, turns=(turn(text),), verdict=verdict)

    group = [
        member("add them\nfirst sort\nthen more", True),
        member("add them\nthen halve<|end|>", True),
        member("add them\nguess", False),
    ]
    assert extract(problem("a"), group, []) == [Edit("add", "then halve")]
    assert extract(problem("a"), group[2:], []) == []
    assert (
        extract(problem("a"), [group[0], member("add them\nfirst sort\nthen more", False)], [])
        == []
    )


def test_texts_are_cut_in_the_middle_and_templates_are_checked():
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijklm", 9) == "abc … klm"
    assert len(shortened("x" * 50, 2)) == 2
    assert fill("{a} {{}} {b}", a="{b}", b="x") == "{b} {} x"
    for template, words in (
        ("{question}", r"must hold \{question\} and \{draft\} and no other"),
        ("{question} {draft} {}", "and no other field"),
        ("{question} {draft", "write a brace of the text twice"),
    ):
        with pytest.raises(ValueError, match=words):
            check_template("template", template, "question", "draft")
    assert said(turn("so <answer>5</answer><|end|>")) == "so <answer>5</answer>"
    assert write_answer("", "4") == "<answer>4</answer>"
