"""Chat templates: messages to text, and text to ids without trusting the content of messages.

A template is rendered twice, once with a mark in place of each content. The text between the marks
is the template's own: control symbols in it are encoded as such. The text in place of the marks is
content of users, tools or the policy: it is always encoded as plain text.

All text between two control symbols is encoded at once, so tokens merge across the border of
template and content. The ids are the same as for the whole rendering encoded at once, unless a
content spells a control symbol.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from gtpo_jax.types import TemplateTokenizer

Message = Mapping[str, Any]
"""`role`, `content`, and other keys that a template reads: `tool_calls`, `tool_call_id`, `name`."""

NOW = datetime.datetime(2025, 1, 1)
"""Default time for templates: a prompt must not depend on the day of its run."""


ARGUMENTS = ("messages", "tools", "documents", "add_generation_prompt")
"""Variables that every rendering passes to the template."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of a rendering: text of the template, or content."""

    text: str
    template: bool  # text of the template: its control symbols are encoded as such


class ChatTemplate:
    """A Jinja template of messages, run in a sandbox.

    `variables` are further variables that it reads: the special tokens of its tokenizer, and
    switches such as `enable_thinking`. `now` is the time that `strftime_now` formats. `ends` are
    tokens, as ids or texts, that end a turn besides the template's own end marker.
    """

    def __init__(
        self,
        source: str,
        *,
        variables: Mapping[str, Any] | None = None,
        now: datetime.datetime = NOW,
        ends: Sequence[int | str] = (),
    ):
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[jinja2.ext.loopcontrols, _Generation],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = now.strftime
        self.variables = dict(variables or {})
        self.ends = tuple(ends)
        try:
            self.reads = _read_variables(environment.parse(source), environment.globals)
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"the chat template is not valid Jinja: {error}") from error

    @classmethod
    def load(
        cls,
        folder: str | pathlib.Path,
        *,
        name: str = "default",
        variables: Mapping[str, Any] | None = None,
        now: datetime.datetime = NOW,
    ) -> ChatTemplate:
        """Loads the template of a model's folder: `chat_template.jinja`, or the one in
        `tokenizer_config.json`.

        `name` chooses among several templates. The special tokens of the configuration, such as
        `bos_token`, are variables; `variables` overrides them. The end tokens are those of
        generation_config.json, or else of config.json. Raises `ValueError` if there is no template,
        or if it never reads one of `variables`.
        """
        folder = pathlib.Path(folder)
        config = _read_json(folder / "tokenizer_config.json")
        source = config.get("chat_template")
        if isinstance(source, list):
            named = {each["name"]: each["template"] for each in source}
            if name not in named:
                raise ValueError(f"{folder} has no chat template {name!r}; it has {sorted(named)}")
            source = named[name]
        if (folder / "chat_template.jinja").is_file():
            source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        if source is None:
            raise ValueError(
                f"no chat template in {folder}: neither chat_template.jinja nor a chat_template in"
                " tokenizer_config.json; take the folder of an instruction-tuned model"
            )
        special = {key: _symbol(value) for key, value in config.items() if key.endswith("_token")}
        variables = {**special, **(variables or {})}
        template = cls(source, variables=variables, now=now, ends=_ends(folder))
        for unread in variables.keys() - special.keys() - template.reads:
            raise ValueError(
                f"the chat template of {folder} never reads the variable {unread}; it reads"
                f" {', '.join(sorted(template.reads)) or 'none'}"
            )
        return template

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = False,
    ) -> str:
        """Text of a conversation. Raises `ValueError` if the template refuses it."""
        try:
            return self._template.render(
                **{
                    **self.variables,
                    "messages": [dict(message) for message in messages],
                    "tools": [dict(tool) for tool in tools] or None,
                    "documents": None,
                    "add_generation_prompt": add_generation_prompt,
                }
            )
        except (jinja2.TemplateError, TypeError) as error:
            roles = [message.get("role") for message in messages]
            raise ValueError(
                f"the chat template refuses messages of the roles {roles}: {error}"
            ) from error


def segments(render: Callable[[Sequence[str]], str], contents: Sequence[str]) -> list[Segment]:
    """Splits `render(contents)` into text of the template and the contents, alternating.

    The segments join to `render(contents)`. A content appears as the template shows it, for example
    stripped or quoted. Raises `ValueError` unless `render` shows every content once and in order.
    If the template shows a content elsewhere or differently because of its text, the content is
    inserted unchanged where others would appear; then the segments do not join to the rendering.
    """
    marks = _marks(contents)
    own = _between(render(marks), marks)
    if own is None:
        raise ValueError(
            f"the template shows {len(contents)} contents other than once each and in their order;"
            " choose another template, or messages that it shows"
        )
    shown = list(contents)
    if render(contents) != _interleaved(own, contents):
        for i, content in enumerate(contents):
            text = render([*marks[:i], content, *marks[i + 1 :]])
            regions = _between(text, [*marks[:i], *marks[i + 1 :]])
            inside = None if regions is None else _inside(regions[i], own[i], own[i + 1])
            if inside is not None:
                shown[i] = inside
            elif not content.strip():  # the template drops an empty content and the text around it
                return segments(
                    lambda others, i=i: render([*others[:i], contents[i], *others[i:]]),
                    [*contents[:i], *contents[i + 1 :]],
                )
    pieces = [Segment(own[0], True)]
    for content, text in zip(shown, own[1:], strict=True):
        pieces += [Segment(content, False), Segment(text, True)]
    return [piece for piece in pieces if piece.text]


class SegmentEncoder:
    """Encodes segments with one tokenizer."""

    def __init__(self, tokenizer: TemplateTokenizer):
        self._tokenizer = tokenizer
        self._ids = tokenizer.control_symbols
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def split(self, text: str) -> list[str]:
        """Plain text and control symbols, alternating; the first and the last are plain text."""
        return self._pattern.split(text) if self._ids else [text]

    def encode(self, pieces: Iterable[Segment]) -> list[int]:
        """Ids of segments. Only text of the template can become a control symbol."""
        ids: list[int] = []
        plain = ""
        for piece in pieces:
            if not piece.template:
                plain += piece.text
                continue
            text, *rest = self.split(piece.text)
            plain += text
            for symbol, text in zip(rest[::2], rest[1::2], strict=True):
                ids += [*self._tokenizer.encode(plain), self._ids[symbol]]
                plain = text
        return ids + self._tokenizer.encode(plain)


def _marks(contents: Sequence[str]) -> list[str]:
    """Words that no content holds: letters and digits, which no template strips or escapes."""
    number = 0
    while any(f"content{number}x" in content for content in contents):
        number += 1
    return [f"content{number}x{i}x" for i in range(len(contents))]


def _between(text: str, marks: Sequence[str]) -> list[str] | None:
    """The text before, between and after the marks; None unless each occurs once, in order."""
    parts: list[str] = []
    for mark in marks:
        before, separator, text = text.partition(mark)
        if not separator or mark in text:
            return None
        parts.append(before)
    return [*parts, text]


def _inside(text: str, before: str, after: str) -> str | None:
    """The text between `before` and `after`; None if it does not begin and end with them."""
    if text.startswith(before) and text[len(before) :].endswith(after):
        return text[len(before) : len(text) - len(after)]
    return None


def _interleaved(own: Sequence[str], contents: Sequence[str]) -> str:
    pairs = zip(contents, own[1:], strict=True)
    return own[0] + "".join(content + text for content, text in pairs)


def _read_variables(tree: jinja2.nodes.Template, known: Mapping[str, Any]) -> frozenset[str]:
    """Variables that a template reads, besides `ARGUMENTS` and those of its environment (`known`).

    A variable that the template also assigns counts only if the assignment is a default:
    `{% if x is not defined %}{% set x = 1 %}{% endif %}`, `{% set x = x or 1 %}`.
    """
    nodes = jinja2.nodes
    assigned = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    asked = {
        node.node.name
        for node in tree.find_all((nodes.Test, nodes.Filter))
        if node.name in ("defined", "undefined", "default", "d")
        and isinstance(node.node, nodes.Name)
    }
    for alternative in tree.find_all(nodes.Or):
        if isinstance(alternative.left, nodes.Name):
            asked.add(alternative.left.name)
    unknown = jinja2.meta.find_undeclared_variables(tree) - {*ARGUMENTS, *known}
    return frozenset(unknown - (assigned - asked))


def _ends(folder: pathlib.Path) -> tuple[int | str, ...]:
    """End tokens of a model's folder, looked up as inference libraries do."""
    for name in ("generation_config.json", "config.json"):
        ends = _read_json(folder / name).get("eos_token_id")
        if ends is not None:
            return tuple(ends) if isinstance(ends, list) else (ends,)
    return ()


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object of a file; empty if there is no file."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _symbol(value: Any) -> Any:
    """Text of a special token in a configuration, which may be an object with settings."""
    return value["content"] if isinstance(value, dict) else value


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """`json.dumps` as a filter; Jinja's own escapes `<`, `>`, `&` and `'` for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` marks text of the assistant; it changes no text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
