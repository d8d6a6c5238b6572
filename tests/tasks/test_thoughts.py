"""Thought dropout: which demonstrations lose their thoughts, and what is left of them."""

import pytest

from gtpo_jax.tasks import thoughts
from gtpo_jax.tasks.conversations import Conversation, Said
from gtpo_jax.tasks.source import Answer, Call
from gtpo_jax.types import Problem


def script():
    output = yield Call(thought="I add.", code="1+1")
    yield Answer(thought="So it is ", text=output)


def test_script_keeps_its_calls_and_its_answer():
    emptied = thoughts.script_without_thoughts(script())
    assert next(emptied) == Call(thought="", code="1+1")
    assert emptied.send("2") == Answer(thought="", text="2")
    with pytest.raises(StopIteration):
        next(emptied)


def test_conversation_keeps_its_calls_and_what_follows_a_thought():
    turns = (
        Said(text="I add.", codes=("1+1",), outputs=("2",)),
        Said(text="<think>Two\nis it.</think>The answer is 2", token_ids=(1, 2)),
        Said(text="It is 2", token_ids=(3,)),
    )
    problem = Problem(id="p", question="1+1", answer="2")
    made = thoughts.conversation_without_thoughts(
        Conversation(where="f:1", problem=problem, turns=turns)
    )
    assert made.turns == (
        Said(text="", codes=("1+1",), outputs=("2",)),
        Said(text="<think>\n\n</think>The answer is 2"),
        turns[2],
    )


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_share_is_chosen_by_the_seed(share):
    chosen = [thoughts.is_dropped(3, number, share=share) for number in range(2000)]
    assert chosen == [thoughts.is_dropped(3, number, share=share) for number in range(2000)]
    error = (share * (1 - share) / 2000) ** 0.5
    assert abs(sum(chosen) / 2000 - share) <= 5 * error
    assert share != 0.5 or chosen != [
        thoughts.is_dropped(4, number, share=share) for number in range(2000)
    ]
