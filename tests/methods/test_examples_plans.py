"""Plans on numbers that can be checked by hand, and beside public code."""

import dataclasses

import jax
import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.parts import plans
from gtpo_jax.parts.plans import Moment
from gtpo_jax.parts.plans.guided import CUE, WAYS, begun_anew, choose
from gtpo_jax.parts.plans.hinted import hints, replaced
from gtpo_jax.parts.plans.refined import best, outcome
from gtpo_jax.parts.plans.texts import attempt
from gtpo_jax.types import Verdict
from tests.golden.loader import load
from tests.methods.plan_relatives import (
    FakeRun,
    Row,
    after,
    called,
    calling,
    constant,
    credit_of,
    group_of,
    play,
    problem,
    usual_services,
    well_formed,
)


def hint_of(request):
    """Level of the hint in a prompt; 0 without one."""
    return request.sample - 3 if request.question else 0


@pytest.mark.parametrize("at_once", [1, 3, 9])
def test_smallest_hint_that_succeeds_replaces_the_first_failure(at_once):
    # Levels 1, 2 are knowledge, 5 the plan, 9 and 10 the solution; those from 5 on succeed.
    method, group, run = group_of(
        methods.scaf_grpo(exempt=0, at_once=at_once),
        lambda request, draw: "R" if hint_of(request) >= 5 else "W",
    )
    assert [t.success for t in group] == [True, False, False, False]
    assert [t.facts.get("hint_levels", 0) for t in group] == [5, 0, 0, 0]
    assert bytes(group[0].prompt.astype(np.uint8)).decode() == "qa {x}\nPlan: first add"
    assert [t.sample for t in group] == [8, 1, 2, 3]
    asked = [hint_of(r) for r in run.requests[4:]]
    assert asked == {1: [1, 2, 5], 3: [1, 2, 5], 9: [1, 2, 5, 9, 10]}[at_once]
    found = credit_of(method, well_formed(group))
    np.testing.assert_allclose(found, [1.7321, -0.5774, -0.5774, -0.5774], atol=1e-4)
    sampled = methods.chain(methods.grpo(eps=0.0, ddof=1), methods.scaf_grpo())
    found = credit_of(sampled, well_formed(group))
    np.testing.assert_allclose(found, [1.5, -0.5, -0.5, -0.5], atol=1e-4)


def test_hints_wait_for_their_step_and_for_a_group_that_fails():
    fails = lambda request, draw: "R" if request.question else "W"  # noqa: E731
    for step, count in ((49, 4), (50, 6)):
        _, _, run = group_of(methods.scaf_grpo(at_once=2), fails, step=step)
        assert len(run.requests) == count
    one = group_of(methods.scaf_grpo(exempt=0), calling("WRWW"))
    assert len(one[2].requests) == 4
    unknown = group_of(methods.scaf_grpo(exempt=0), constant("U"))
    assert len(unknown[2].requests) == 4
    never = group_of(methods.scaf_grpo(exempt=0, planning=""), constant("W"))
    assert [hint_of(r) for r in never[2].requests[4:]] == [1, 2, 5, 6]
    assert not any(t.success for t in never[1])


def test_an_unknown_outcome_is_no_failure_to_replace():
    method, group, _ = group_of(
        methods.scaf_grpo(exempt=0),
        lambda request, draw: "R" if request.question else "UWWU"[request.sample],
    )
    assert [t.facts.get("hint_levels", 0) for t in group] == [0, 1, 0, 0]
    assert group[0].verdict is Verdict.UNVERIFIABLE and method.plan.returned(4) == 4


@pytest.mark.parametrize("case", ["hand", "tiers", "unordered"])
def test_replacement_is_that_of_scaf_grpo(case):
    data = load("scaf_grpo")[case]
    inputs, outputs = data["inputs"], data["outputs"]
    answers = FakeRun(Moment(), constant("W"))
    request = plans.independent()(problem("a"), 0, 1)
    failure = answers.answer(next(request)[0])

    def row(number, success):
        verdict = Verdict.RIGHT if success else Verdict.WRONG
        return dataclasses.replace(failure, sample=number, verdict=verdict)

    hinted = list(
        zip(inputs["hint_level"], inputs["hinted_group"], inputs["hinted_reward"], strict=True)
    )
    for group in set(inputs["group"]):
        members = [row(n, False) for n, g in enumerate(inputs["group"]) if g == group]
        tried = sorted((h[0], n) for n, h in enumerate(hinted) if h[1] == group)
        others = [row(1000 + n, hinted[n][2] > 0) for _, n in tried]
        changed = replaced(members, others) or members
        for place, member in zip([m.sample for m in members], changed, strict=True):
            kept = outputs["row"][place], outputs["hinted_row"][place]
            assert kept == ((-1, member.sample - 1000) if member.success else (place, -1))


@pytest.mark.parametrize("case", ["levels_full", "levels_more"])
def test_levels_of_hints_are_those_of_scaf_grpo(case):
    data = load("scaf_grpo")[case]
    names = "knowledge", "planning", "solution"
    parts = dict(zip(names, data["inputs"]["parts"], strict=True))
    info = {name: ["x"] * count for name, count in parts.items()}
    asked = dataclasses.replace(problem("a"), info=info)
    made = list(hints(asked, {name: name for name in names}, parts=4))
    assert [hint.level for hint in made] == data["outputs"]["level"]
    for name in names:
        counts = [len(h.text.split()) if h.label == name else 0 for h in made]
        assert counts == data["outputs"][name]


def test_hints_of_another_form_are_an_error():
    wrong = dataclasses.replace(problem("a"), info={"knowledge": [1, 2]})
    with pytest.raises(ValueError, match=r"hints 'knowledge' of problem 'a' must be a text or"):
        list(hints(wrong, {"knowledge": "K"}, parts=4))


def test_refinements_see_the_first_of_the_best_drafts():
    method, group, run = group_of(methods.igrpo(), calling("WRRW" + "RRWR"))
    drafts = [run.answer(request) for request in run.requests[:4]]
    assert best(drafts, outcome) == 1
    assert [t.sample for t in group] == [4, 5, 6, 7]
    assert attempt(drafts[1], 2000) in run.requests[4].question
    assert len({r.question for r in run.requests[4:]}) == 1
    assert [t.facts["draft_success"] for t in group] == [1.0] * 4
    found = credit_of(method, well_formed(group))
    np.testing.assert_allclose(found, [0.5774, 0.5774, -1.7321, 0.5774], atol=1e-4)


def test_drafts_that_are_all_wrong_still_give_one():
    _, group, run = group_of(methods.igrpo(), calling("UWWW" + "RRRR"))
    assert best([run.answer(r) for r in run.requests[:4]], outcome) == 1
    assert len(group) == 4 and not any(t.facts["draft_success"] for t in group)
    longest = group_of(methods.igrpo(score=lambda t: len(t.turns[-1].text)), constant("W"))
    assert len(longest[2].requests) == 8


def test_a_draft_succeeds_as_often_as_the_best_of_four():
    expected = 1 - 0.75**4
    assert expected == pytest.approx(0.6836, abs=1e-4)
    row = Row(lambda: after(methods.igrpo()))
    quarter = lambda request, draw: "R" if draw < 0.25 else "W"  # noqa: E731
    names = "".join(chr(200 + n) for n in range(400))
    groups = play(row, row.make(), names, verdict=quarter, size=1).groups
    found = np.mean([group[0].facts["draft_success"] for group in groups])
    assert abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / len(groups))


def test_corrections_are_compared_with_those_of_their_parent():
    method, group, run = group_of(
        methods.multi_layer_grpo(), calling("RWWW" + "RRRR" + "WRRW" + "WWWW" + "RWWW")
    )
    found = credit_of(method, well_formed(group))
    np.testing.assert_allclose(found[:4], [1.7321, -0.5774, -0.5774, -0.5774], atol=1e-4)
    np.testing.assert_allclose(found[4:8], 0.0)
    np.testing.assert_allclose(found[8:12], [-1, 1, 1, -1], atol=1e-4)
    np.testing.assert_allclose(found[12:16], 0.0)
    assert [t.facts["correction_groups"] for t in group] == [0] * 4 + sorted([1, 2, 3, 4] * 4)
    first = [run.answer(request) for request in run.requests[:4]]
    for number, request in enumerate(run.requests[4:]):
        assert attempt(first[number // 4], 2000) in request.question
    assert len({r.question for r in run.requests[4:]}) == 4


def test_corrections_over_their_parent_and_their_weight():
    modifier = methods.multi_layer_grpo(corrections=2, baseline="parent", weight=0.5)
    method, group, _ = group_of(modifier, calling("RW" + "RW" + "RW"), size=2)
    np.testing.assert_allclose(credit_of(method, group)[2:], [0, -0.5, 0.5, 0], atol=1e-6)
    half = methods.multi_layer_grpo(corrections=2, weight=0.5)
    method, group, _ = group_of(half, calling("RW" + "RW" + "RR"), size=2)
    np.testing.assert_allclose(credit_of(method, well_formed(group))[2:], [0.5, -0.5, 0, 0])


def test_a_response_of_unknown_outcome_is_not_corrected():
    _, group, run = group_of(
        methods.multi_layer_grpo(corrections=2), calling("UW" + "xx" + "RW"), size=2
    )
    assert [r.sample for r in run.requests] == [0, 1, 4, 5]
    assert [t.facts["correction_groups"] for t in group] == [0, 0, 2, 2]


def test_guides_are_chosen_with_the_stated_chances():
    draws = 4000
    for solution, chances in ((True, (0.5, 0.25, 0.25)), (False, (0.5, 0.5, 0.0))):
        found = [choose(Moment(step=n), problem("a"), 0, solution=solution) for n in range(draws)]
        for way, chance in zip(WAYS, chances, strict=True):
            error = 5 * np.sqrt(chance * (1 - chance) / draws)
            assert abs(np.mean([w == way for w in found]) - chance) <= error


def test_failures_are_replaced_by_their_corrections():
    seen = set()
    for step in range(8):
        _, group, run = group_of(
            methods.guided_correction(),
            lambda request, draw: "RWWU"[request.sample] if request.sample < 4 else "R",
            step=step,
        )
        assert [t.sample for t in group] == [0, 5, 6, 3]
        for request, member in zip(run.requests[4:], group[1:3], strict=True):
            wrong = run.answer(run.requests[request.sample - 4])
            way = WAYS[member.facts["guided"] - 1]
            seen.add(way)
            if way == "solution":
                assert request.script == ("<code>print(2+2)</code>", "<answer>4</answer>")
                continue
            assert [t.text for t in request.turns] == [t.text for t in wrong.turns]
            cue = bytes(request.turns[-1].observation.astype(np.uint8)).decode()
            assert cue == f"[{CUE}]"
            assert [s.endswith("<answer>4</answer>") for s in request.script] == (
                [] if way == "reflect" else [True]
            )
            assert member.shared_turns == 0
    assert seen == set(WAYS)


def test_a_failure_without_room_for_a_turn_goes_on_before_its_last():
    request = next(plans.independent()(problem("a"), 0, 1))[0]
    wrong = FakeRun(Moment(), constant("W")).answer(request)
    full = Moment(services=usual_services(), max_turns=len(wrong.turns))
    assert begun_anew(wrong, full) == wrong.turns[:-1]
    assert len(begun_anew(wrong, full._replace(max_turns=9))) == len(wrong.turns)


def test_gold_rows_join_always_or_where_all_fail():
    _, group, run = group_of(methods.tempsamp(), calling("RWW" + "x" + "R"))
    assert [t.off_policy for t in group] == [False] * 3 + [True]
    assert run.requests[3].script == ("<answer>4</answer>",)
    assert not any(turn.violation for turn in group[3].turns)
    rescue = methods.gcpo_contrastive(gold="solution")
    _, group, run = group_of(rescue, calling("UWWW" + "R"))
    assert [t.off_policy for t in group] == [False, True, False, False]
    assert run.requests[4].script == ("<code>print(2+2)</code>", "<answer>4</answer>")
    _, group, run = group_of(rescue, calling("WRWW"))
    assert len(run.requests) == 4


def test_softened_rewards_see_the_gold_row():
    # Right: tau + .01 ln 1.2; wrong: tau − (e^.8 − 1) / (e − 1).
    method, group, _ = group_of(methods.tempsamp(), calling("RWW" + "x" + "R"))
    high, low = 0.8 + 0.01 * np.log(1.2), 0.8 - np.expm1(0.8) / np.expm1(1.0)
    soft = np.array([high, low, low, high])
    found = credit_of(method, well_formed(group))
    np.testing.assert_allclose(found, (soft - soft.mean()) / soft.std(), atol=1e-4)


def test_solutions_go_on_after_their_plan():
    method = after(methods.pta_grpo(solutions=3))
    letters = "RWR" + "RW" + "WW" + "RR"

    class Planning(FakeRun):
        def answer(self, request):
            found = super().answer(request)
            first = called(f"plan {request.sample}")
            turns = found.turns if request.turns else (first, *found.turns[-1:])
            return dataclasses.replace(found, turns=turns)

    run = Planning(Moment(), lambda request, draw: letters[request.sample])
    episodes = method.plan(problem("a"), 0, 9)
    first = run(next(episodes))[0]
    seconds = run(episodes.send(first))[0]
    with pytest.raises(StopIteration) as done:
        episodes.send(seconds)
    group = done.value.value
    texts = [t.turns[0].text.split("<")[0] for t in group]
    plan = [int(text.split()[1]) for text in texts]
    assert plan == [0, 1, 2, 0, 0, 1, 1, 2, 2]
    batch = packing.episode_batch(group, max_turns=4, needs=method.facts)
    parts = jax.jit(lambda batch: methods.assign(method, method.credit.init(), batch)[1].parts)
    quality = np.asarray(parts(batch)["plan"]).sum(1)
    np.testing.assert_allclose(quality[:3], [0.6667, 0.0, 1.0], atol=1e-4)
    with pytest.raises(ValueError, match="a group of 8 cannot hold 3 solutions of every plan"):
        next(method.plan(problem("a"), 0, 8))


def test_delegated_tasks_come_back_as_observations():
    def verdict(request, draw):
        return "D" if not request.turns and request.sample < 2 else "R"

    method, group, run = group_of(methods.m_grpo(subs=2), verdict, size=2)
    assert [t.facts["agents"] for t in group] == [0, 0, 1, 1, 1, 1]
    assert [t.facts["parents"] for t in group] == [0, 1, 0, 0, 1, 1]
    assert [t.sample for t in group[:2]] == [0, 1]
    task = run.answer(run.requests[0]).turns[-1].text.split(">")[1].split("<")[0]
    assert [r.question for r in run.requests[2:4]] == [task] * 2
    [report] = run.requests[6].turns
    assert bytes(report.observation.astype(np.uint8)).decode() == "[4]"
    assert report.violation is None
    assert all(t.shared_turns == 0 and t.turns[0].text.endswith("<|end|>") for t in group[:2])
    asked = [r.sample for r in run.requests]
    assert len(set(asked)) == len(asked)
    assert [t.verdict for t in group[2:]] == [Verdict.RIGHT] * 4
    assert np.isfinite(credit_of(method, group)).all()


def test_a_main_row_that_delegates_too_often_ends_there():
    _, group, run = group_of(
        methods.m_grpo(rounds=2),
        lambda request, draw: "R" if request.question.startswith("part") else "D",
        size=1,
    )
    assert len(group[0].turns) == 3 and not group[0].success and len(group) == 3
    assert len(run.requests) == 5
