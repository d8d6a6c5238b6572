"""Dialogues in the chat template of a model, with a tool protocol: a `grammar.AnyDialogue`.

The template renders only text of the environment, never text of the policy. The observation after a
turn is the part of the rendering that the reply adds: the separators after the turn's end marker,
the messages with the outputs, and the prompt for the next turn.

    <|im_start|>user⏎question<|im_end|>⏎<|im_start|>assistant⏎        prompt
    text, a call<|im_end|>                                            a turn
    ⏎<|im_start|>tool⏎output<|im_end|>⏎<|im_start|>assistant⏎         the observation
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from gtpo_jax.decoding import stops
from gtpo_jax.language import excerpts
from gtpo_jax.language.answers import THINK, THINK_END, trimmed, write_answer
from gtpo_jax.language.grammar import ParsedTurn, cut_stopped
from gtpo_jax.language.protocols import ToolProtocol
from gtpo_jax.language.templates import ChatTemplate, Message, Segment, SegmentEncoder, segments
from gtpo_jax.types import TemplateTokenizer

# Placeholders for a question, a turn, an output and the id of a call. Some templates require ids of
# nine characters.
_QUESTION, _TURN, _OUTPUT, _CALL_ID = "aquestionx", "apolicyturnx", "anoutputx", "call00001"


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The form in which a conversation is given to the template."""

    system_message: bool  # False: the system prompt opens the first user message
    structured_calls: bool  # a turn has `tool_calls`, for templates that show no other calls


class ChatDialogue:
    """Prompts, observations and turns in a chat template.

    `system_prompt`: None takes that of the protocol. It is text of the template, so control symbols
    in it are encoded as such. If the template takes no system message, or moves it as the
    conversation grows, the system prompt opens the first user message, followed by a blank line.

    A turn ends with the template's end marker, with one of `stop_symbols` (None: the `eos_token` of
    the template's variables and the template's `ends`), or with a stop string of the protocol. The
    policy samples these, and they are trained. After a stop string the environment adds the end
    marker, unless the protocol continues the same message with the outputs.

    Raises `ValueError` if the template cannot be extended: if no control symbol ends a turn, or if
    later messages change the text of earlier ones. Also if it does not show the protocol's tools.
    """

    def __init__(
        self,
        tokenizer: TemplateTokenizer,
        template: ChatTemplate,
        protocol: ToolProtocol,
        *,
        system_prompt: str | None = None,
        most_calls: int = 1,
        stop_symbols: Sequence[str] | None = None,
    ):
        self.tokenizer = tokenizer
        self.template = template
        self.protocol = protocol
        self.system_prompt = protocol.system_prompt if system_prompt is None else system_prompt
        self.most_calls = most_calls
        self.stop_strings = protocol.stop_strings
        self._encoder = SegmentEncoder(tokenizer)
        self._layout, self._end = self._choose_layout()
        ends = self._ends() if stop_symbols is None else map(tokenizer.control_id, stop_symbols)
        self.stop_ids = tuple(dict.fromkeys([tokenizer.control_id(self._end), *ends]))
        prompt = self._render(self._opening(_QUESTION), prompting=True)
        without_tools = template.render(self._opening(_QUESTION), add_generation_prompt=True)
        if protocol.tools and prompt == without_tools:
            raise ValueError(
                "the chat template does not show tools; describe them in the system prompt, as in"
                " HermesCalls(tools=(), system_prompt=HERMES_DESCRIBED_PROMPT)"
            )
        self._begins_in_thought = prompt.rstrip().endswith(THINK)
        self._lead = self._find_lead(prompt)

    def prompt(self, question: str) -> np.ndarray:
        """Ids of the prompt, up to the first token of the policy."""
        return self._ids(
            segments(
                lambda contents: self._render(self._opening(*contents), prompting=True), [question]
            )
        )

    def observation(
        self, output: str | Sequence[str], *, budget: int, ended: bool = True
    ) -> tuple[np.ndarray, int]:
        """Ids that follow a turn, and the number of output tokens cut.

        The ids are the messages with the outputs and the prompt for the next turn; if the turn has
        not `ended` with its end marker, the marker comes first. They take at most `budget` tokens.
        Long outputs are cut in the middle (`excerpts.excerpt`); each gets at least an even share
        of the room. Raises `ValueError` if not even empty outputs fit.
        """
        outputs = [output] if isinstance(output, str) else list(output)
        pieces = segments(lambda contents: self._reply(contents, ended), outputs)
        parts = [self._encoder.encode([piece]) for piece in pieces]
        own = sum(len(ids) for piece, ids in zip(pieces, parts, strict=True) if piece.template)
        if own > budget:
            raise ValueError(
                f"an observation of {len(outputs)} outputs takes at least {own} tokens, its budget"
                f" is {budget}"
            )
        ids = self._ids(pieces)
        if len(ids) <= budget:
            return ids, 0
        lengths = [len(x) for piece, x in zip(pieces, parts, strict=True) if not piece.template]
        shares = iter(_shares(lengths, budget - own))
        fitted: list[int] = []
        dropped = 0
        for piece, part in zip(pieces, parts, strict=True):
            room = len(part) if piece.template else next(shares)
            excerpt, cut = excerpts.excerpt(part, room, self.tokenizer)
            fitted += excerpt
            dropped += cut
        return np.array(fitted, np.int32), dropped

    def parse(
        self,
        tokens: Sequence[int] | np.ndarray,
        *,
        before: ParsedTurn | None = None,
        unmarked: bool = False,
    ) -> ParsedTurn:
        """Parses the tokens of one turn.

        The text ends at the stop string, even if the token that completes it continues.
        """
        ids = [int(token) for token in tokens]
        text = self.tokenizer.decode(ids)
        ended = bool(ids) and ids[-1] in self.stop_ids
        body = ids[:-1] if ended else ids
        controls = [at for at, token in enumerate(body) if not self.tokenizer.token_bytes(token)]
        said = self.tokenizer.decode(body[controls[-1] + 1 :] if controls else body)
        if not ended:
            said = stops.cut(said, self.stop_strings)
            if not said.endswith(tuple(self.stop_strings)):
                return self._violated(text, "the turn did not end")
        if controls:
            return self._violated(text, "a control symbol inside the turn")
        parsed = self.protocol.parse(
            said,
            most_calls=self.most_calls,
            in_thought=self._in_thought(before),
            unmarked=unmarked,
        )
        goes_on = self.protocol.inline and not ended
        thinking = parsed.thinking if goes_on else self._begins_in_thought
        return dataclasses.replace(parsed, text=text, thinking=thinking)

    def turn(self, text: str, *, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn given as text without its end marker.

        The white space that the template puts before a turn is added. Outside code, tags of the
        protocol become the tokens that the tokenizer has for them; control symbols stay text. If
        the prompt has opened a thought, the text may open it again.
        """
        said, stopped = cut_stopped(text, self.stop_strings)
        in_thought = self._in_thought(before)
        if in_thought and said.lstrip().startswith(THINK):
            said = said.lstrip().removeprefix(THINK).removeprefix("\n")
        if not said.startswith(self._lead):
            said = self._lead + said
        pieces = self.protocol.segments(said, in_thought=in_thought)
        ids = self._encoder.encode(pieces)
        return np.array(ids if stopped else [*ids, self.stop_ids[0]], np.int32)

    def call(self, thought: str, *codes: str, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn that calls the tool: the thought, then each call on lines of its own.

        Raises `ValueError` if the protocol cannot write the calls, or so many of them.
        """
        text = self._opened(before, thought, *map(self.protocol.call, codes))
        tokens = self.turn(text, before=before)
        read = self.parse(tokens, before=before)
        if read.codes != codes:
            reason = read.violation or f"it would be read as {read.codes}"
            raise ValueError(
                f"{type(self.protocol).__name__} cannot write the call: {reason}; take another"
                " dialogue.protocol (hermes writes any code), or raise dialogue.most_calls"
            )
        return tokens

    def unclosed_call(
        self, thought: str, code: str, *, before: ParsedTurn | None = None
    ) -> np.ndarray:
        """Ids of a turn whose call is not closed, as imperfect demonstrators write it."""
        text = self._opened(before, thought, self.protocol.call(code, closed=False))
        return self.turn(text, before=before)

    def answer(self, thought: str, answer: str, *, before: ParsedTurn | None = None) -> np.ndarray:
        """Ids of a turn that answers. Raises `ValueError` if it would be parsed differently."""
        text = self._opened(before, thought) + write_answer(answer)
        tokens = self.turn(text, before=before)
        read = self.parse(tokens, before=before)
        if read.answer != trimmed(answer):
            raise ValueError(
                f"the answer {answer!r} behind {thought!r} would be read as {read.answer!r}"
                f" ({read.violation or 'well formed'}); write less before it"
            )
        return tokens

    def _ends(self) -> Iterator[int]:
        """Ids of the end tokens that the template names."""
        symbols, size = self.tokenizer.control_symbols, self.tokenizer.vocab_size
        eos = str(self.template.variables.get("eos_token"))
        if eos in symbols:
            yield symbols[eos]
        for end in self.template.ends:
            token = symbols.get(end) if isinstance(end, str) else end
            if not isinstance(token, int) or not 0 <= token < size:
                raise ValueError(
                    f"the end token {end!r} of the model, the eos_token_id of its"
                    f" generation_config.json or config.json, is none of the {size} tokens of its"
                    " tokenizer; correct the file, or take the tokenizer of the model"
                )
            yield token

    def _violated(self, text: str, violation: str) -> ParsedTurn:
        return ParsedTurn(text=text, violation=violation, thinking=self._begins_in_thought)

    def _in_thought(self, before: ParsedTurn | None) -> bool:
        return self._begins_in_thought if before is None else before.thinking

    def _opened(self, before: ParsedTurn | None, thought: str, *calls: str) -> str:
        """Text of a turn. Closes a thought that the turn begins in and does not close itself."""
        if self._in_thought(before) and THINK_END not in thought:
            thought = f"\n{THINK_END}\n\n{thought}"
        if calls and thought and not thought.endswith("\n"):
            thought += "\n"
        return thought + "\n".join(calls)

    def _find_lead(self, prompt: str) -> str:
        """White space that the template puts between the prompt of a turn and its text."""
        turn: Message = {"role": "assistant", "content": _TURN}
        messages = [*self._opening(_QUESTION), turn]
        before = self._render(messages, prompting=False).partition(_TURN)[0]
        lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
        return "" if lead.strip() else lead

    def _ids(self, pieces: Sequence[Segment]) -> np.ndarray:
        return np.array(self._encoder.encode(pieces), np.int32)

    def _render(self, messages: Sequence[Message], *, prompting: bool) -> str:
        return self.template.render(
            messages, tools=self.protocol.tools, add_generation_prompt=prompting
        )

    def _opening(self, question: str) -> list[Message]:
        """The messages of a prompt."""
        if not self.system_prompt:
            return [{"role": "user", "content": question}]
        if self._layout.system_message:
            system = {"role": "system", "content": self.system_prompt}
            return [system, {"role": "user", "content": question}]
        return [{"role": "user", "content": f"{self.system_prompt}\n\n{question}"}]

    def _turn(self) -> Message:
        """A placeholder message for a turn of the policy."""
        if not self._layout.structured_calls:
            return {"role": "assistant", "content": _TURN}
        function = {"name": "python", "arguments": {"code": _TURN}}
        call = {"id": _CALL_ID, "type": "function", "function": function}
        return {"role": "assistant", "content": "", "tool_calls": [call]}

    def _replies(self, outputs: Sequence[str]) -> list[Message]:
        """The messages that show outputs."""
        contents = list(map(self.protocol.reply, outputs))
        if self.protocol.reply_role == "tool":
            return [
                {"role": "tool", "name": "python", "tool_call_id": _CALL_ID, "content": content}
                for content in contents
            ]
        return [{"role": self.protocol.reply_role, "content": "\n".join(contents)}]

    def _reply(self, outputs: Sequence[str], ended: bool) -> str:
        """Text from the end of a turn to the start of the next one."""
        if self.protocol.inline and not ended:
            return "".join(f"\n{self.protocol.reply(output)}" for output in outputs) + "\n"
        messages = [*self._opening(_QUESTION), self._turn(), *self._replies(outputs)]
        behind = self._render(messages, prompting=True).partition(_TURN)[2]
        _, end, reply = behind.partition(self._end)
        return reply if ended else end + reply

    def _choose_layout(self) -> tuple[_Layout, str]:
        """The first layout in which a conversation can be extended, and the end marker of turns."""
        refusals: list[str] = []
        for structured, system in itertools.product((False, True), (True, False)):
            self._layout = _Layout(system, structured)
            try:
                return self._layout, self._end_marker()
            except ValueError as error:
                if not structured:  # errors of the fallback layouts would mislead
                    refusals.append(str(error))
        raise ValueError("; ".join(dict.fromkeys(refusals)))

    def _end_marker(self) -> str:
        """The control symbol that ends a turn; ValueError if this layout cannot be extended."""
        turn: Message = {"role": "assistant", "content": _TURN}
        messages = self._opening(_QUESTION)
        behind = self._encoder.split(
            self._render([*messages, turn], prompting=False).partition(_TURN)[2]
        )
        if len(behind) < 3 or behind[0].strip() or not self._is_special(behind[1]):
            raise ValueError(
                f"the chat template puts {''.join(behind)!r} behind a turn, which should begin with"
                " a special token of the tokenizer; take the tokenizer that the template is for"
            )
        end, replies = behind[1], list[str]()
        for _ in range(2):
            asked = self._render(messages, prompting=True)
            messages += [self._turn(), *self._replies([_OUTPUT])]
            shown, _, rest = self._render(messages, prompting=True).rpartition(_TURN)
            if not self._continues(asked, shown):
                pairs = enumerate(zip(asked, shown, strict=False))
                same = next((i for i, (a, b) in pairs if a != b), min(len(asked), len(shown)))
                raise ValueError(
                    "the chat template changes a conversation that goes on, so turns cannot be"
                    f" added to it: {asked[same:]!r} becomes {shown[same:]!r}, behind"
                    f" {asked[:same][-40:]!r}; take a protocol with another reply_role or no tools,"
                    " or set one of the template's variables with --dialogue.template-variables"
                    f" (it reads {', '.join(sorted(self.template.reads)) or 'none'})"
                )
            replies.append(rest.partition(end)[2])
        if replies[0] != replies[1] or replies[0].count(_OUTPUT) != 1:
            raise ValueError(
                f"the chat template puts {replies[0]!r} behind the first turn and {replies[1]!r}"
                f" behind the second; each should show the output {_OUTPUT} once; take another"
                " template"
            )
        return end

    def _continues(self, asked: str, shown: str) -> bool:
        """True if the text before a turn in the history (`shown`) equals its prompt (`asked`).

        Either may end with more text, such as a space or a thought that is opened or left empty,
        but not with more control symbols of turns.
        """
        if self._layout.structured_calls:
            return shown.startswith(asked.rstrip())
        shorter, longer = sorted([asked, shown], key=len)
        more = self._encoder.split(longer[len(shorter.rstrip()) :])
        return longer.startswith(shorter.rstrip()) and not any(map(self._is_special, more[1::2]))

    def _is_special(self, symbol: str) -> bool:
        """True for a control symbol that is not text of a turn."""
        return not self.tokenizer.token_bytes(self.tokenizer.control_id(symbol))


def _shares(lengths: Sequence[int], room: int) -> list[int]:
    """The room for each length: an even share, plus the room that shorter ones do not use."""
    shares = [0] * len(lengths)
    shortest_first = sorted(range(len(lengths)), key=lengths.__getitem__)
    for left, at in zip(range(len(lengths), 0, -1), shortest_first, strict=True):
        shares[at] = min(lengths[at], room // left)
        room -= shares[at]
    return shares
