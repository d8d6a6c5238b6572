"""Chat templates of five model families, reduced to their layouts, and tokenizers to go with them.

The tokenizers are trained here on a few lines: byte-level BPE, and BPE that writes spaces as U+2581
and falls back to bytes, each with the control symbols of its family.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import tempfile

import tokenizers as huggingface
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from gtpo_jax.language import templates
from gtpo_jax.language.tokenizers import SPACE, JsonTokenizer

QWEN_TOOLS = r"""
{%- macro system(text) -%}
    {{- '<|im_start|>system\n' + text }}
    {%- if tools %}
        {{- '\n\n# Tools\n<tools>' }}
        {%- for tool in tools %}{{- '\n' + tool | tojson }}{%- endfor %}
        {{- '\n</tools>\nCall them within <tool_call></tool_call>.' }}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endmacro -%}
{%- macro result(message, first, last) -%}
    {%- if first %}{{- '<|im_start|>user' }}{%- endif %}
    {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
    {%- if last %}{{- '<|im_end|>\n' }}{%- endif %}
{%- endmacro -%}
{%- macro results(message, i) -%}
    {{- result(message, messages[i - 1].role != 'tool',
               i + 1 == messages | length or messages[i + 1].role != 'tool') }}
{%- endmacro -%}
"""

QWEN25 = (
    QWEN_TOOLS
    + r"""
{%- if messages[0].role == 'system' %}
    {{- system(messages[0].content) }}
{%- else %}
    {{- system('You are helpful.') }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- results(message, loop.index0) }}
    {%- elif message.role != 'system' %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
)

# Thoughts of turns before the last question are left out, and the last turn always shows one.
QWEN3 = (
    QWEN_TOOLS
    + r"""
{%- if messages[0].role == 'system' %}
    {{- system(messages[0].content) }}
{%- elif tools %}
    {{- system('') }}
{%- endif %}
{%- set ns = namespace(asked=0) %}
{%- for message in messages %}
    {%- if message.role == 'user' and not (message.content.startswith('<tool_response>')
                                           and message.content.endswith('</tool_response>')) %}
        {%- set ns.asked = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- results(message, loop.index0) }}
    {%- elif message.role == 'assistant' %}
        {%- set thought = '' %}
        {%- set said = message.content %}
        {%- if '</think>' in said %}
            {%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}
            {%- set said = said.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > ns.asked and (loop.last or thought) %}
            {{- '<think>\n' + thought + '\n</think>\n\n' }}
        {%- endif %}
        {{- said + '<|im_end|>\n' }}
    {%- elif message.role == 'user' %}
        {{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""
)

# Outputs are quoted as JSON: a string can be iterated.
LLAMA31 = r"""
{{- bos_token }}
{%- set said = '' %}
{%- if messages[0].role == 'system' %}
    {%- set said = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}
{{- 'Today Date: ' + (date_string or strftime_now('%d %b %Y')) + '\n\n' + said + '<|eot_id|>' }}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\n\n' }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}
        {%- if 'tool_calls' in message %}
            {%- if message.tool_calls | length != 1 %}
                {{- raise_exception('one call at a time') }}
            {%- endif %}
            {{- message.tool_calls[0].function | tojson }}
        {%- else %}
            {{- message.content | trim }}
        {%- endif %}
    {%- endif %}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

# The system prompt stands in the last user message, if nothing follows it, and tools before it.
# Questions and turns alternate, calls aside.
MISTRAL = r"""
{%- set system = none %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- set asked = messages | selectattr('role', 'equalto', 'user') | list %}
{%- set ns = namespace(count=0) %}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or message.tool_calls is defined) %}
        {%- if (message.role == 'user') != (ns.count % 2 == 0) %}
            {{- raise_exception('questions and turns have to alternate') }}
        {%- endif %}
        {%- set ns.count = ns.count + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if tools is not none and message == asked[-1] %}
            {{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST] ' }}
        {%- if loop.last and system is not none %}{{- system + '\n\n' }}{%- endif %}
        {{- message.content + '[/INST]' }}
    {%- elif message.tool_calls is defined %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in message.tool_calls %}
            {{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' }}
        {%- endfor %}
        {{- ']' + eos_token }}
    {%- elif message.role == 'assistant' %}
        {{- ' ' + message.content + eos_token }}
    {%- else %}
        {%- if message.tool_call_id | length != 9 %}
            {{- raise_exception('ids of calls have nine letters') }}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content | string }}
        {{- ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}
"""

GEMMA3 = r"""
{{- bos_token }}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content + '\n\n' %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles have to alternate') }}
    {%- endif %}
    {%- set role = 'model' if message.role == 'assistant' else message.role %}
    {{- '<start_of_turn>' + role + '\n' + (system if loop.first else '') }}
    {{- message.content | trim }}
    {{- '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\n' }}
{%- endif %}
"""

LINES = [
    "What is the sum of 2 and 3? Let me run a program, then I answer.",
    '{"name": "python", "arguments": {"code": "print(1 + 1)"}}',
    "import math\n\ndef f(x):\n    return x // 2\n\nprint(f(10))\n",
    "system\nuser\nassistant\nmodel\nToday Date: 01 Jan 2025\n\nThe output is 12, so it is 5.\n",
    "```python\nprint(2)\n```\n```output\n2\n```\nTraceback: ValueError: no  such   value </s>",
] * 20
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


@dataclasses.dataclass(frozen=True)
class Family:
    """A template and the control symbols that it is made of."""

    template: str
    special: tuple[str, ...]
    end: str
    byte_level: bool
    tags: tuple[str, ...] = ()  # added tokens that are not marked special
    variables: tuple[tuple[str, object], ...] = ()

    def chat_template(self, **variables: object) -> templates.ChatTemplate:
        return templates.ChatTemplate(
            self.template, variables={**dict(self.variables), **variables}
        )

    def library_tokenizer(self) -> huggingface.Tokenizer:
        """The tokenizer as the library reads it: control symbols in texts become tokens."""
        return _trained(self.special, self.tags, self.byte_level)

    def tokenizer(self) -> JsonTokenizer:
        return _read(self.special, self.tags, self.byte_level)


QWEN_EOS = (("eos_token", "<|im_end|>"),)
FAMILIES = {
    "qwen2.5": Family(QWEN25, CHATML, "<|im_end|>", True, QWEN_TAGS, QWEN_EOS),
    "qwen3": Family(
        QWEN3, CHATML, "<|im_end|>", True, (*QWEN_TAGS, "<think>", "</think>"), QWEN_EOS
    ),
    "llama3.1": Family(
        LLAMA31,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        True,
        variables=(("bos_token", "<|begin_of_text|>"), ("eos_token", "<|eot_id|>")),
    ),
    "mistral": Family(
        MISTRAL,
        (
            "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
        ),
        "</s>",
        False,
        variables=(("bos_token", "<s>"), ("eos_token", "</s>")),
    ),
    "gemma3": Family(
        GEMMA3,
        ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        False,
        variables=(("bos_token", "<bos>"), ("eos_token", "<eos>")),
    ),
}  # fmt: skip


def train_byte_level(special: tuple[str, ...], tags: tuple[str, ...]) -> huggingface.Tokenizer:
    """Control symbols behind the vocabulary, as those of Qwen and Llama 3."""
    tokenizer = huggingface.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_special_tokens(list(special))
    tokenizer.add_tokens([huggingface.AddedToken(tag, normalized=False) for tag in tags])
    return tokenizer


def train_metaspace(special: tuple[str, ...]) -> huggingface.Tokenizer:
    """Control symbols at the head of the vocabulary, then the bytes, as those of SentencePiece."""
    tokenizer = huggingface.Tokenizer(
        models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator([word for line in LINES for word in line.split("\n")], trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [x for x in data["added_tokens"] if x["content"] in special]
    return huggingface.Tokenizer.from_str(json.dumps(data))


def read(tokenizer: huggingface.Tokenizer) -> JsonTokenizer:
    """The tokenizer as the project reads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "tokenizer.json"
        tokenizer.save(str(path))
        return JsonTokenizer(path)


@functools.cache
def _trained(
    special: tuple[str, ...], tags: tuple[str, ...], byte_level: bool
) -> huggingface.Tokenizer:
    return train_byte_level(special, tags) if byte_level else train_metaspace(special)


@functools.cache
def _read(special: tuple[str, ...], tags: tuple[str, ...], byte_level: bool) -> JsonTokenizer:
    return read(_trained(special, tags, byte_level))
