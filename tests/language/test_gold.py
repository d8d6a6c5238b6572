"""Gold answers as a policy writes them."""

import numpy as np
import pytest

from gtpo_jax.language import gold
from gtpo_jax.types import Problem
from tests.language.test_chat import EACH, make
from tests.language.test_grammar import BOTH


def problem(answer):
    return Problem(id="p/1", question="q", answer=answer)


@BOTH
@pytest.mark.parametrize("answer", ["42", "-3/4", "answer", " 7 x "])
def test_markers_are_no_part_of_the_answer(dialogue, answer):
    written = gold.gold_answer(dialogue, problem(answer))
    assert dialogue.tokenizer.decode(written.opening.tolist()).strip() == "<answer>"
    assert dialogue.tokenizer.decode(written.answer.tolist()).strip() == answer.strip()
    whole = dialogue.answer("", answer)
    start = [*written.opening, *written.answer]
    np.testing.assert_array_equal(start, whole[: len(start)])
    assert dialogue.parse(whole).answer == answer.strip()


@EACH
@pytest.mark.parametrize("answer", ["42", "x", "e", "{"])
def test_chat_models_write_the_same_form_as_demonstrators(name, protocol, answer):
    dialogue = make(name, protocol)
    written = gold.gold_answer(dialogue, problem(answer))
    bytes_of = dialogue.tokenizer.token_bytes
    said = b"".join(map(bytes_of, written.answer.tolist())).decode()
    before = b"".join(map(bytes_of, written.opening.tolist())).decode()
    assert answer in said and len(said) <= len(answer) + 4, said  # tokens may span the ends
    assert dialogue.parse(dialogue.answer("", answer)).answer == answer
    assert before.strip() and len(written.answer)


def test_problems_without_an_answer_as_a_text_are_named():
    dialogue = make(*EACH.args[1][0])
    with pytest.raises(ValueError, match="'p/1' has no gold answer as a text"):
        gold.gold_answer(dialogue, problem(" "))
    with pytest.raises(ValueError, match="'p/1', which the method scores, cannot be written"):
        gold.gold_answer(dialogue, problem("</answer> }"))
