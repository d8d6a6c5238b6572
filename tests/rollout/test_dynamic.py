"""Dynamic sampling: which groups are kept, how many problems a round tries, and what it may not
depend on."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtpo_jax import rollout
from gtpo_jax.decoding import sampling
from gtpo_jax.parts.prompts import unequal_outcomes
from gtpo_jax.rollout import RolloutEngine, RolloutLimits, RolloutStats
from gtpo_jax.testing import FakeTool, scripted_forward
from gtpo_jax.types import Problem, Request, StopReason, Trajectory, Turn, Verdict
from gtpo_jax.verifiers import numeric_or_exact
from tests.tiny import BYTES, DIALOGUE

ENDINGS = {
    "R": (StopReason.ANSWERED, Verdict.RIGHT),
    "W": (StopReason.ANSWERED, Verdict.WRONG),
    "N": (StopReason.NO_ACTION, Verdict.NO_ANSWER),
    "L": (StopReason.TURN_LIMIT, Verdict.NO_ANSWER),
    "U": (StopReason.ANSWERED, Verdict.UNVERIFIABLE),
    "T": (StopReason.TOOL_FAILURE, Verdict.NO_ANSWER),
    "C": (StopReason.CONTEXT_FULL, Verdict.NO_ANSWER),
}


def trajectory(ending, problem="p", group=0, sample=0, violation=None):
    stop, verdict = ENDINGS[ending]
    turn = Turn(
        tokens=np.zeros(1, np.int32), logprobs=np.zeros(1, np.float32), text="", violation=violation
    )
    return Trajectory(
        problem=Problem(id=problem, question="", answer=""),
        group=group,
        sample=sample,
        prompt=np.zeros(1, np.int32),
        turns=(turn,),
        stop_reason=stop,
        verdict=verdict,
    )


def cost(tokens):
    counts = {field.name: 1 for field in dataclasses.fields(RolloutStats)}
    return RolloutStats(**counts | {"sampled_tokens": tokens})


class Script:
    """A rollout whose endings are known beforehand: sample s of a problem ends as its text says."""

    def __init__(self, endings):
        self.endings = endings
        self.sizes = []  # problems of each call
        self.requests = []

    def __call__(self, requests):
        self.requests += requests
        self.sizes.append(len({request.group for request in requests}))
        ended = [
            trajectory(self.endings[r.problem.id][r.sample], r.problem.id, r.group, r.sample)
            for r in requests
        ]
        return ended, cost(10 ** len(self.sizes))


def problems(names):
    return [Problem(id=name, question="", answer="") for name in names]


def collect(endings, *, wanted, rounds, **options):
    """`endings`: one text for each problem of the stream, whose ids are their numbers."""
    script = Script({str(number): text for number, text in enumerate(endings)})
    names = map(str, range(len(endings)))
    size = len(endings[0])
    groups = rollout.collect_groups(
        script, problems(names), wanted=wanted, group_size=size, rounds=rounds, **options
    )
    return groups, script


def ids(trajectories):
    """The problem of each group, in order."""
    return [int(name) for name, _ in itertools.groupby(t.problem.id for t in trajectories)]


@pytest.mark.parametrize(
    ("endings", "signal"),
    [
        ("RW", True),
        ("WWWR", True),
        ("RN", True),
        ("LR", True),
        ("RR", False),
        ("WW", False),
        ("WNL", False),
        # Without a known outcome it is neither a success nor a failure.
        ("RU", False),
        ("RT", False),
        ("RCR", False),
        ("WTUC", False),
        ("RTW", True),
        ("R", False),
        ("", False),
    ],
)
def test_signal_is_two_different_known_outcomes(endings, signal):
    assert unequal_outcomes([trajectory(ending) for ending in endings]) is signal


def test_signal_is_not_judged_by_format_or_length():
    unequal = [trajectory("W"), trajectory("W", violation="unclosed")]
    unequal[0] = dataclasses.replace(unequal[0], turns=unequal[0].turns * 3)
    assert not unequal_outcomes(unequal)


def test_round_tries_what_is_missing_at_the_rate_seen_so_far():
    # 1 of 4 has signal, 3 are missing: 12, but no more than 4; then 3 of 8, 1 is missing: 3.
    groups, script = collect(
        ["RR", "RW", "WW", "RR", *["RR", "RW", "WR", "WW"], *["RW", "WR", "RR"], "RW"],
        wanted=4,
        rounds=9,
    )
    assert script.sizes == [4, 4, 3]
    assert ids(groups.kept) == [1, 5, 6, 8], "the earliest of those that there are too many of"
    assert ids(groups.sampled) == list(range(11))
    assert (groups.groups_kept, groups.groups_dropped, groups.rounds) == (4, 7, 3)


def test_round_after_none_with_signal_is_a_whole_one():
    _, script = collect(["RR"] * 3 + ["RW"] * 9, wanted=3, rounds=9)
    assert script.sizes == [3, 3]


def test_one_round_suffices_when_all_groups_have_signal():
    groups, script = collect(["RW"] * 8, wanted=3, rounds=5)
    assert script.sizes == [3] and ids(groups.kept) == [0, 1, 2]
    assert groups.kept == groups.sampled


def test_too_few_groups_with_signal_are_all_that_is_kept():
    groups, script = collect(["RR", "RW", "RR", "RR", "WR", "RW"], wanted=2, rounds=2)
    assert script.sizes == [2, 2] and ids(groups.kept) == [1]
    groups, script = collect(["RR"] * 9, wanted=2, rounds=3)
    assert script.sizes == [2, 2, 2] and groups.kept == [] and len(groups.sampled) == 12
    assert (groups.groups_kept, groups.groups_dropped, groups.rounds) == (0, 6, 3)


def test_rounds_are_used_up_though_problems_are_left():
    # 3 of 4 have signal, 1 is missing: 2, which is less than a round may try.
    endings = ["RW", "RW", "RR", "WR", "RR", "WW", "RW", "RW"]
    groups, script = collect(endings, wanted=4, rounds=2)
    assert script.sizes == [4, 2] and ids(groups.kept) == [0, 1, 3]


def test_problems_that_come_to_an_end_end_the_rounds():
    groups, script = collect(["RR", "RW", "RR"], wanted=2, rounds=9)
    assert script.sizes == [2, 1] and ids(groups.kept) == [1]


def test_all_that_was_sampled_is_paid_for():
    groups, _ = collect(["RR"] * 6, wanted=2, rounds=3)
    assert groups.stats == dataclasses.replace(
        cost(1110), **{f.name: 3 for f in dataclasses.fields(RolloutStats)[1:]}
    )


def test_another_predicate_sees_whole_groups():
    seen = []

    def second_fails(group):
        seen.append([t.sample for t in group])
        return group[1].verdict is Verdict.WRONG

    groups, _ = collect(["RWR", "WRW", "WWW"], wanted=2, rounds=2, has_signal=second_fails)
    assert ids(groups.kept) == [0, 2]
    assert seen == [[0, 1, 2]] * 3


def test_plan_may_ask_again_and_shares_its_rollouts_with_others():
    """A second chance for groups without a success: two more samples, the group is all of them."""

    def second_chance(problem, group, size):
        first = yield [Request(problem=problem, group=group, sample=s) for s in range(size)]
        if any(t.success for t in first):
            return first
        more = range(size, size + 2)
        return first + (yield [Request(problem=problem, group=group, sample=s) for s in more])

    script = Script({"0": "WWRW", "1": "RWWW", "2": "WWWW"})
    groups = rollout.collect_groups(
        script,
        problems("012"),
        wanted=3,
        group_size=2,
        rounds=1,
        has_signal=lambda group: True,
        plan=second_chance,
    )
    assert script.sizes == [3, 2], "one rollout for all plans, then one for the two that go on"
    sizes = [len(list(part)) for _, part in itertools.groupby(t.group for t in groups.kept)]
    assert sizes == [4, 2, 4] and ids(groups.kept) == [0, 1, 2]
    assert [t.sample for t in groups.kept[:4]] == [0, 1, 2, 3]
    assert (groups.rounds, groups.stats.sampled_tokens) == (1, 110)


def test_group_size_may_differ_between_problems():
    script = Script({"0": "RW", "1": "RWW"})
    groups = rollout.collect_groups(script, problems("01"), wanted=2, group_size=[2, 3], rounds=1)
    assert [t.problem.id for t in groups.kept] == ["0"] * 2 + ["1"] * 3


def test_problem_of_an_earlier_round_is_not_tried_again():
    script = Script({"a": "RR", "b": "RW", "c": "WR"})
    stream = problems(["a", "b", "b", "a", "c", "b"])
    groups = rollout.collect_groups(script, stream, wanted=2, group_size=2, rounds=3)
    assert [t.problem.id for t in groups.kept[::2]] == ["b", "c"]
    assert script.sizes == [2, 1]


def test_endless_repetition_of_one_problem_ends():
    script = Script({"a": "RR"})
    stream = itertools.cycle(problems(["a"]))
    groups = rollout.collect_groups(script, stream, wanted=1, group_size=2, rounds=4)
    assert groups.rounds == 1 and groups.kept == []


@given(
    st.lists(st.text("RWT", min_size=3, max_size=3), min_size=1, max_size=30),
    st.integers(1, 6),
    st.integers(1, 5),
)
def test_groups_kept_are_the_first_with_signal_of_the_stream(endings, wanted, rounds):
    groups, script = collect(endings, wanted=wanted, rounds=rounds)
    tried = sum(script.sizes)
    with_signal = [n for n, text in enumerate(endings[:tried]) if {"R", "W"} <= set(text)]
    assert ids(groups.kept) == with_signal[:wanted]
    assert ids(groups.sampled) == list(range(tried))
    assert groups.rounds == len(script.sizes) <= rounds
    assert tried <= wanted * rounds and max(script.sizes) <= wanted
    enough = len(with_signal) >= wanted
    assert enough or groups.rounds == rounds or tried == len(endings)
    # Ids lie in [0, trajectories), as group statistics need; samples are numbered in each group.
    assert [t.group for t in groups.kept] == [n // 3 for n in range(len(groups.kept))]
    assert [t.group for t in groups.sampled] == [n // 3 for n in range(3 * tried)]
    assert [t.sample for t in groups.sampled] == [0, 1, 2] * tried
    assert [r.group for r in script.requests] == [t.group for t in groups.sampled]
    assert groups.groups_kept * 3 == len(groups.kept)
    assert groups.groups_kept + groups.groups_dropped == tried


@pytest.mark.parametrize("name", ["wanted", "group_size", "rounds"])
def test_number_below_one_is_an_error(name):
    numbers = {"wanted": 2, "group_size": 2, "rounds": 2} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        rollout.collect_groups(Script({}), problems(["a"]), **numbers)


def test_no_problem_at_all_is_an_error():
    with pytest.raises(ValueError, match="at least one problem"):
        rollout.collect_groups(Script({}), [], wanted=1, group_size=1, rounds=1)


def test_run_that_loses_a_trajectory_is_an_error():
    with pytest.raises(ValueError, match="each of 2 requests, got 1"):
        rollout.collect_groups(
            lambda requests: ([trajectory("R")], cost(1)),
            problems(["a"]),
            wanted=1,
            group_size=2,
            rounds=1,
        )


@pytest.mark.slow
def test_groups_kept_do_not_depend_on_how_long_tools_take():
    limits = RolloutLimits(
        slots=3, context=64, prompt_tokens=12, max_turns=3, turn_tokens=24, observation_tokens=16
    )
    # Every second problem is solved; "a".."h" call the tool once more than "i".."n".
    names = "abcdefghijklmn"
    dialogues = [
        np.concatenate(
            [
                DIALOGUE.prompt(name),
                *[DIALOGUE.call("", name), DIALOGUE.observation("4", budget=16)[0]]
                * (2 if name < "i" else 1),
                DIALOGUE.answer("", "4" if ord(name) % 2 else "5"),
            ]
        )
        for name in names
    ]
    forward = scripted_forward(dialogues, vocab_size=BYTES.vocab_size, otherwise=ord("?"))
    stream = [Problem(id=name, question=name, answer="4") for name in names]

    engine = RolloutEngine(
        forward, DIALOGUE, FakeTool({}), numeric_or_exact, limits, sampling.categorical
    )

    def kept(seconds):
        with FakeTool(lambda code: "4", seconds=seconds, threads=3) as engine.tool:
            groups = rollout.collect_groups(
                lambda requests: engine.run({}, requests, seed=0, step=0),
                stream,
                wanted=5,
                group_size=2,
                rounds=2,
                has_signal=lambda group: all(t.success for t in group),
            )
        return [(t.problem.id, t.sample, len(t.turns)) for t in groups.kept]

    slow_first = kept(lambda code: 0.03 * (ord("n") - ord(code)) / 13)
    assert [name for name, _, _ in slow_first[::2]] == ["a", "c", "e", "g", "i"]
    assert kept(lambda code: 0.03 * (ord(code) - ord("a")) / 13) == slow_first
