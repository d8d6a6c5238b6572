"""Ends of turns in a chat: end tokens, stop strings, the first block."""

import numpy as np
import pytest

from gtpo_jax.decoding import stops
from gtpo_jax.language import protocols
from gtpo_jax.language.chat import ChatDialogue
from gtpo_jax.language.templates import ChatTemplate
from tests.chat_families import FAMILIES
from tests.language.test_chat import CALL, EACH, FENCED, build, make, parsed


@EACH
def test_end_marker_is_put_in_where_a_stop_string_ended_the_turn(name, protocol):
    dialogue = make(name, protocol)
    ended, _ = dialogue.observation("4", budget=200)
    cut, _ = dialogue.observation("4", budget=200, ended=False)
    end = dialogue.tokenizer.control_id(FAMILIES[name].end)
    assert cut.tolist() == [end, *ended.tolist()]
    assert ended[0] != end and dialogue.stop_ids[0] == end


def test_stop_symbols_end_turns_besides_the_end_marker():
    dialogue = make("qwen2.5", FENCED, stop_symbols=["<|endoftext|>"])
    symbols = ("<|im_end|>", "<|endoftext|>")
    assert dialogue.stop_ids == tuple(map(dialogue.tokenizer.control_id, symbols))
    assert parsed(dialogue, f"{CALL}<|endoftext|>", "qwen2.5").codes == ("print(1)",)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("qwen2.5", ("<|im_end|>", "<|endoftext|>")),
        ("llama3.1", ("<|end_header_id|>", "<|eot_id|>", "<|begin_of_text|>")),
        ("mistral", ("</s>",)),
        ("gemma3", ("<eos>", "<end_of_turn>")),
    ],
)
@pytest.mark.parametrize("spelled", [True, False], ids=["symbols", "ids"])
def test_every_end_token_of_the_model_ends_a_turn(name, ends, spelled):
    family = FAMILIES[name]
    tokenizer = family.tokenizer()
    ids = [tokenizer.control_id(end) for end in ends]
    template = ChatTemplate(
        family.template, variables=dict(family.variables), ends=ends if spelled else ids
    )
    dialogue = ChatDialogue(tokenizer, template, FENCED)
    assert dialogue.stop_ids[0] == tokenizer.control_id(family.end)
    assert {*dialogue.stop_ids} >= {*ids} and len({*dialogue.stop_ids}) == len(dialogue.stop_ids)
    for end in ends:
        turn = parsed(dialogue, f"The answer is \\boxed{{5}}.{end}", name)
        assert (turn.answer, turn.violation) == ("5", None)
        assert parsed(dialogue, f"{CALL}{end}", name).codes == ("print(1)",)


@pytest.mark.parametrize("end", [100_000, -1, "<|no_such_token|>", "text", None, 1.5])
def test_end_token_that_the_tokenizer_lacks_is_an_error(end):
    family = FAMILIES["qwen2.5"]
    template = ChatTemplate(family.template, ends=[end])
    with pytest.raises(
        ValueError, match=r"eos_token_id.*is none of the \d+ tokens of its tokenizer"
    ):
        ChatDialogue(family.tokenizer(), template, FENCED)


def test_stop_strings_are_matched_in_tags_that_are_tokens():
    # `</tool_call>` is one token that no text encodes to, and still text of the turn.
    tokenizer = FAMILIES["qwen2.5"].tokenizer()
    token_bytes = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    table = stops.build(["</tool_call>"], token_bytes)
    closing = tokenizer.control_id("</tool_call>")
    assert table.next_state[0, closing] == table.next_state.shape[0] - 1
    assert closing not in tokenizer.encode("</tool_call>")


def test_a_turn_may_end_behind_its_first_block():
    dialogue = build("qwen2.5", protocols.FencedPython.after_block())
    tokenizer = dialogue.tokenizer
    table = stops.build(
        dialogue.stop_strings, [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    )
    written = "I print.\n```python\nprint(2)\n```\nIt prints:\n```python\nprint(3)\n```"
    ids = tokenizer.encode(written)
    stopped = [
        count
        for count in range(1, len(ids) + 1)
        if stops.advanced(table, np.array(ids[:count])) == table.next_state.shape[0] - 1
    ]
    turn = ids[: stopped[0]]
    assert tokenizer.decode(turn).rstrip().endswith("print(2)\n```")
    assert dialogue.parse(turn).codes == ("print(2)",)
    # The end marker that the policy did not write comes first in what follows.
    observed, _ = dialogue.observation("2", budget=100, ended=False)
    assert observed[0] == dialogue.stop_ids[0]
    demonstrated = dialogue.call("I print.", "print(2)")
    assert demonstrated[-1] == dialogue.stop_ids[0]
