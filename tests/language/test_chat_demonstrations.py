"""Turns that demonstrators write in chat templates: as a policy would, and read back as meant."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from gtpo_jax.language.chat import ChatDialogue
from gtpo_jax.language.templates import ChatTemplate
from tests.chat_families import FAMILIES
from tests.language.test_chat import (
    EACH,
    FENCED,
    MARKUP,
    PAIRS,
    QUESTION,
    TAGS,
    make,
    opening,
    reply_messages,
    turn_message,
)

TEXT = strategies.text(strategies.characters(codec="utf-8"), max_size=30)
TRICKY = strategies.lists(
    strategies.sampled_from(
        [
            MARKUP,
            "</tool_call>",
            "<tool_call>",
            "<think>",
            "</code>",
            "```",
            "\n",
            "print(1)",
            "é",
            "{",
        ]
    ),
    max_size=6,
).map("".join)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [*PAIRS, *((name, TAGS) for name in FAMILIES)],
    ids=lambda value: value if isinstance(value, str) else f"{type(value).__name__}",
)
@hypothesis.given(thought=TEXT, code=TEXT | TRICKY, answer=TEXT | TRICKY)
@hypothesis.settings(max_examples=30)
def test_turn_of_a_demonstrator_is_parsed_back_or_refused(name, protocol, thought, code, answer):
    dialogue = make(name, protocol)
    control = set(dialogue.tokenizer.control_symbols.values())
    special = {i for i in control if not dialogue.tokenizer.token_bytes(i)}
    for write, given in ((dialogue.call, code), (dialogue.answer, answer)):
        try:
            ids = write(thought, given)
        except ValueError:
            continue
        turn = dialogue.parse(ids)
        said = turn.codes if write == dialogue.call else (turn.answer,)
        # The end marker is the turn's, and no other control symbol is in it.
        assert said == ((code,) if write == dialogue.call else (answer.strip(),))
        assert turn.violation is None and ids.dtype == np.int32
        assert [i for i in ids.tolist() if i in special] in ([], [dialogue.stop_ids[0]])


@EACH
@pytest.mark.parametrize(
    "code", ["print(1)", "if x:\n    print('<|im_end|></tool_call>')\n", MARKUP]
)
def test_ordinary_calls_and_answers_can_be_written(name, protocol, code):
    dialogue = make(name, protocol)
    assert dialogue.parse(dialogue.call("Let me see.", code, "2")).codes == (code, "2")
    assert dialogue.parse(dialogue.answer("So it is ", "5")).answer == "5"
    assert dialogue.parse(dialogue.unclosed_call("Hm.", code)).violation is not None


@EACH
def test_demonstration_turn_by_turn_is_the_whole_conversation(name, protocol):
    # Against the library's own encoding, in which tags are tokens wherever they stand.
    dialogue, family = make(name, protocol), FAMILIES[name]
    told = opening(name, QUESTION)
    ids = dialogue.prompt(QUESTION).tolist()
    for number in range(2):
        text = f"Let me run it.\n{protocol.call(f'print({number})')}"
        if name == "mistral" and protocol.reply_role == "tool":
            text = "The template shows it as a call."
            message, shown = turn_message(name, protocol, text)
            ids += dialogue.turn(shown).tolist()[1:]  # without the space before a text
        else:
            message = {"role": "assistant", "content": text}
            ids += dialogue.turn(text).tolist()
        ids += dialogue.observation("1", budget=999)[0].tolist()
        told += [message, *reply_messages(protocol, ["1"])]
    whole = family.chat_template().render(told, tools=protocol.tools, add_generation_prompt=True)
    if name == "mistral" and protocol.reply_role == "tool":
        assert dialogue.tokenizer.decode(ids) == whole
    else:
        assert ids == family.library_tokenizer().encode(whole, add_special_tokens=False).ids


def test_turn_ends_with_the_stop_string_that_its_text_ends_with():
    dialogue = make("qwen2.5", TAGS)
    end = dialogue.tokenizer.control_id("<|im_end|>")
    turn = dialogue.turn("Go: <code>x</code>\n")
    assert dialogue.tokenizer.decode(turn) == "Go: <code>x</code>" and end not in turn
    assert dialogue.turn("\\boxed{4}")[-1] == end
    with pytest.raises(ValueError, match="'</code>' ends a turn, and here '<interpreter>"):
        dialogue.turn("<code>x</code>\n<interpreter>\n4\n</interpreter>")
    with pytest.raises(ValueError, match="'</code>' ends a turn"):
        dialogue.call("", "x", "y")
    with pytest.raises(ValueError, match="'</code>' ends a turn"):
        dialogue.call("", "print('</code>')")


def test_call_that_would_be_read_otherwise_is_refused():
    with pytest.raises(ValueError, match="CodeTags cannot write the call: it would be read as"):
        make("qwen2.5", TAGS).call("", "```\nx\n```")
    with pytest.raises(ValueError, match=r"4 calls in one turn, .*raise dialogue\.most_calls"):
        make("qwen2.5", FENCED).call("", *"abcd")
    with pytest.raises(ValueError, match="would be read as None"):
        make("qwen2.5", FENCED).answer("```python\n", "4")


def test_thought_that_the_prompt_opens_is_closed_by_the_turn():
    family = FAMILIES["qwen3"]
    source = family.template.replace("'<think>\\n\\n</think>\\n\\n'", "'<think>\\n'")
    template = ChatTemplate(source, variables={"enable_thinking": False})
    dialogue = ChatDialogue(family.tokenizer(), template, FENCED)
    decode, symbol = dialogue.tokenizer.decode, dialogue.tokenizer.control_id
    call = dialogue.call("", "x")
    assert decode(call).startswith("\n</think>\n\n```python\nx") and symbol("</think>") in call
    assert dialogue.parse(dialogue.answer("So ", "4")).answer == "4"
    # As others write it, with the thought opened, it is opened once.
    told = dialogue.turn("<think>\nhm\n</think>\n\n\\boxed{4}")
    assert told.tolist() == dialogue.turn("hm\n</think>\n\n\\boxed{4}").tolist()
    assert dialogue.parse(told).answer == "4" and symbol("<think>") not in told


def test_thought_that_the_prompt_opens_is_closed_once_in_a_message():
    family = FAMILIES["qwen3"]
    source = family.template.replace("'<think>\\n\\n</think>\\n\\n'", "'<think>\\n'")
    template = ChatTemplate(source, variables={"enable_thinking": False})
    dialogue = ChatDialogue(family.tokenizer(), template, TAGS)
    closing = dialogue.tokenizer.control_id("</think>")
    first = dialogue.call("", "x")
    read = dialogue.parse(first)
    # Outputs go on in the message, and the thought is behind them.
    for tokens in (dialogue.call("", "y", before=read), dialogue.answer("So ", "4", before=read)):
        assert closing in first and closing not in tokens
        assert dialogue.parse(tokens, before=read).violation is None
