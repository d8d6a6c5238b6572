"""Facts of the relatives that shape rewards, as they are read off trajectories."""

import dataclasses

import numpy as np
import pytest

from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.parts import facts, rewards
from gtpo_jax.types import Problem, StopReason, ToolResult, ToolStatus, Verdict
from tests.tiny import make_trajectory

INFO = {"entities": ["Ada Lovelace", "1815", "Ada Lovelace"], "paraphrase_of": "q1"}


def trajectory(*turns, answer="", stop=StopReason.ANSWERED, problem="p", verdict=Verdict.WRONG):
    """A trajectory of turns `(text, code, printed)`; a code of "" is no call."""
    made = make_trajectory(np.random.default_rng(0), [(2, 1)] * len(turns))
    filled = tuple(
        dataclasses.replace(
            turn,
            text=text,
            codes=(code,) if code else (),
            results=(ToolResult(status=ToolStatus.OK, stdout=printed),) if code else (),
        )
        for turn, (text, code, printed) in zip(made.turns, turns, strict=True)
    )
    return dataclasses.replace(
        made,
        problem=Problem(id=problem, question="q", answer="a", info=INFO),
        turns=filled,
        answer=answer or None,
        stop_reason=stop,
        verdict=verdict,
    )


TRAJECTORIES = [
    trajectory(
        ("I ask for 1815: <code>print('Ada Lovelace')</code>", "print('Ada Lovelace')", "14\n"),
        ("So 14.5 it is not.", "", ""),
        ("The answer is 14.", "", ""),
        answer="14",
    ),
    trajectory(("Ada  Lovelace", "", ""), stop=StopReason.TURN_LIMIT),
    trajectory(),
    trajectory(
        ('Ada Lovelace {"code": "x = \\"1815\\""}', 'x = "1815"', ""),
        ("The answer is 7.", "", ""),
        answer="7",
        problem="other",
    ),
]


def gathered(modifier, given=None):
    """The facts of a modifier, read off trajectories."""
    needs = modifier(methods.grpo()).facts
    given = TRAJECTORIES if given is None else given
    return packing.episode_batch(given, max_turns=3, needs=needs).facts


def test_entities_are_exact_phrases_outside_code():
    found = gathered(methods.e_grpo())
    assert found["entity_hits"].tolist() == [1, 0, 0, 1]
    assert found["entity_count"].tolist() == [2] * 4
    assert found["cut_off"].tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match="lacks entities"):
        facts.check_fields(methods.e_grpo()(methods.grpo()).facts, {}, "p")


def test_turns_that_match_an_answer_show_it():
    found = gathered(methods.tp_grpo())["answer_turns"].astype(int).tolist()
    assert found == [[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]]
    own = methods.tp_grpo(labels=lambda t: [k == 0 for k in range(len(t.turns))])
    found = gathered(own)["thought_labels"].astype(int).tolist()
    assert found == [[1, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]
    with pytest.raises(ValueError, match="one label for each of the 3 turns"):
        gathered(methods.tp_grpo(labels=lambda t: [True]))


def test_plan_is_the_text_of_the_first_turn():
    text = ("I add them.", "", "")
    given = [trajectory(text), trajectory(text, text), trajectory(text, problem="other")]
    found = gathered(methods.pta_grpo(), given)["plans"]
    assert found[0] == found[1] != found[2]
    assert gathered(methods.pta_grpo())["plans"][2] == 0


def test_preferences_are_one_number_per_turn():
    half = methods.ws_grpo(prefer=lambda t: [0.5] * len(t.turns))
    found = gathered(half)["prefix_preferences"]
    assert found.tolist() == [[0.5] * 3, [0.5, 0, 0], [0] * 3, [0.5, 0.5, 0]]
    with pytest.raises(ValueError, match="or one for each of the 3 turns"):
        gathered(methods.ws_grpo(prefer=lambda t: [0.5]))


def test_words_of_the_last_turn_and_of_the_answer_are_counted():
    found = gathered(methods.ps_grpo())
    assert len(set(found["families"].tolist())) == 1
    assert found["last_text"].sum(2).tolist() == [[4, 3], [2, 1], [0, 0], [4, 3]]
    assert np.array_equal(found["last_text"][0], rewards.count_ngrams("the ANSWER is: 14"))
    answers = gathered(methods.ps_grpo(compare="answer"))["answer_text"]
    assert answers.sum(2).tolist() == [[1, 0], [0, 0], [0, 0], [1, 0]]
    with pytest.raises(ValueError, match="order must be 1 or 2"):
        methods.ps_grpo(order=3)


def test_lexical_scores_are_those_of_a_small_text():
    text = "the cat sat. the cat saw the dog"
    # 8 words: the ×3, cat ×2, sat, saw, dog
    entropy = -(3 / 8 * np.log(3 / 8) + 2 / 8 * np.log(2 / 8) + 3 * 1 / 8 * np.log(1 / 8))
    yule = 1e4 * (9 + 4 + 3 - 8) / 64
    expected = [
        5 / 8,
        entropy / np.log(8),
        1 / 4,  # lengths 3 and 5
        1 / 2,
        1 - 2 / 5,
        1 / (1 + yule / 100),
        6 / 7,  # "the cat" comes twice
        1 / 3,
    ]
    np.testing.assert_allclose(rewards.lexical_scores(text), expected)
    assert rewards.lexical_scores("...") == [0.0] * 8
    assert all(0 <= score <= 1 for score in rewards.lexical_scores("word"))


def test_diversity_is_that_of_the_texts_without_code():
    found = gathered(methods.multirole_r1())["diversity"]
    assert found.shape == (4, 8) and not np.any(found[2])
    expected = rewards.lexical_scores("Ada  Lovelace")
    np.testing.assert_allclose(found[1], expected, rtol=1e-6)
    changed = dataclasses.replace(TRAJECTORIES[0].turns[0], text="I ask for 1815: <code> </code>")
    without = dataclasses.replace(TRAJECTORIES[0], turns=(changed, *TRAJECTORIES[0].turns[1:]))
    again = gathered(methods.multirole_r1(), [without])["diversity"]
    np.testing.assert_array_equal(again[0], found[0])
    with pytest.raises(ValueError, match="8 scores, got 2 weights"):
        methods.multirole_r1(weights=[0.5, 0.5])


def test_scores_of_a_trajectory_are_as_many_as_weights():
    def count(trajectory):
        return [len(trajectory.turns), 1.0]

    found = gathered(methods.multi_objective(scores=count, weights=[1.0, 2.0]))["scores"]
    assert found.tolist() == [[3, 1], [1, 1], [0, 0], [2, 1]]
    for function in (lambda t: [1.0], lambda t: [1.0, float("nan")]):
        with pytest.raises(ValueError, match="needs 2 finite scores"):
            gathered(methods.multi_objective(scores=function, weights=[1.0, 2.0]))


def test_judge_gives_a_number_to_a_trajectory():
    found = gathered(methods.craft_gui(judge=lambda t: 0.25 * len(t.turns)))["reward judge"]
    assert found.tolist() == [[0, 0, 0.75], [0.25, 0, 0], [0, 0, 0], [0, 0.5, 0]]
