"""Chat templates that cannot be extended, or do not show the tools, are refused."""

import pytest

from gtpo_jax.language import protocols
from gtpo_jax.language.chat import ChatDialogue
from gtpo_jax.language.templates import ChatTemplate
from tests.chat_families import FAMILIES
from tests.language.test_chat import DESCRIBED, FENCED, HERMES


def refused(template, protocol=FENCED, name="qwen2.5", match=""):
    with pytest.raises(ValueError, match=match):
        ChatDialogue(FAMILIES[name].tokenizer(), ChatTemplate(template), protocol)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("message.content + '<|im_end|>", "message.content + '<end>", "<end>.*special token"),
        ("message.content + '<|im_end|>", "message.content + 'x<|im_end|>", "special token"),
        ("message.content + '<|im_end|>", "message.content + '</tool_call>", "special token"),
        ("{%- macro system", "{{- messages | length }}{%- macro system", "'2.*becomes '4"),
        (r"assistant\n' }}", r"policy\n' }}", "'policy.*becomes 'assistant"),
        (r"assistant\n' }}", r"assistant\n<|im_start|>' }}", "'<|im_start|>' becomes ''"),
        ("results(message, loop.index0)", "raise_exception('no tools')", "roles .*: no tools"),
        ("{{- results(mess", "{{- loop.index ~ results(mess", "behind the first turn"),
        ("message.content + '\\n</tool_r", "'\\n</tool_r", "should show the output"),
    ],
)
def test_template_that_cannot_be_added_to_is_refused(old, new, match):
    family = FAMILIES["qwen2.5"]
    assert family.template.count(old) >= 1
    template = ChatTemplate(family.template.replace(old, new))
    with pytest.raises(ValueError, match=match):
        ChatDialogue(family.tokenizer(), template, HERMES)


def test_tools_that_the_template_does_not_show_are_refused():
    family = FAMILIES["llama3.1"]
    with pytest.raises(ValueError, match="does not show tools; describe them"):
        ChatDialogue(family.tokenizer(), family.chat_template(), HERMES)


def test_tools_that_move_as_a_conversation_goes_on_are_refused():
    # Mistral's template puts them before the last user message.
    family = FAMILIES["mistral"]
    protocol = protocols.HermesCalls(reply_role="user")
    with pytest.raises(ValueError, match=r"another reply_role or no tools, .*template-variables"):
        ChatDialogue(family.tokenizer(), family.chat_template(), protocol)


def test_template_that_has_no_place_for_outputs_is_refused():
    family = FAMILIES["gemma3"]
    with pytest.raises(ValueError, match="roles have to alternate"):
        ChatDialogue(family.tokenizer(), family.chat_template(), DESCRIBED)
