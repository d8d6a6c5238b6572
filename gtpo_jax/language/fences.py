"""Finds fenced Markdown blocks in text of a model.

A fence is a line of three or more backticks or tildes. It may be indented, and may follow an
`<answer>` tag. Its block ends at a line with at least as many of the same character and nothing
else but an `</answer>` tag that is not indented deeper, so a fence in a docstring does not end the
block. If there is no such line, one that is indented by up to three more columns ends it, as in
CommonMark. Else the block is not closed, and ends before the last `</answer>` or with the text.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence

ANSWER, ANSWER_END = "<answer>", "</answer>"

PYTHON = ("python", "py", "ipython", "tool_code")
"""Languages of Python blocks, as `language` returns them."""

_FENCE = re.compile(rf"(?:^|(?<={ANSWER}))([ \t]*)(`{{3,}}|~{{3,}})([^\n]*)", re.MULTILINE)
_ENDS = re.compile(rf"[ \t\r]*(?:{ANSWER_END}.*)?", re.DOTALL)
_INFO = re.compile(r"\{?[ \t]*\.?([\w+#-]+(?:\.\d+)*)(.*)", re.DOTALL)
_VERSION = re.compile(r"^(i?py(?:thon)?)3(?:\.\d+)*$")
_VALUE = r"\"[^\"]*\"|'[^']*'|[^\s\"'}]+"
_ATTRIBUTES = re.compile(
    rf"(?:[\s,]*(?:[\w.-]+=(?:{_VALUE})|\{{[^}}]*\}}|[.#][\w-]+|:?[\w./\\-]+\.\w+|:[\w./\\-]+))*"
    r"[\s,]*\}?\s*"
)
_ONE_WORD = re.compile(r"[ \t]+[\w.-]+")
_DEEPER = 3
"""Columns by which a closing fence may be indented deeper, if no other fence closes the block."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block. `begin`, `code_end` and `end` are indices into the text."""

    label: str  # text after the opening fence, stripped
    code: str  # the lines of the block, without the indentation of the opening fence
    begin: int  # start of the line of the opening fence
    code_end: int  # start of the line of the closing fence, or the end of the block
    end: int  # after the closing fence
    closed: bool

    @property
    def language(self) -> str:
        return language(self.label)

    @property
    def labeled_well(self) -> bool:
        """True if only attributes, a file or one word follow the language: no code, for example."""
        info = _INFO.match(self.label)
        rest = info[2] if info else ""
        return any(pattern.fullmatch(rest) for pattern in (_ATTRIBUTES, _ONE_WORD))


def language(label: str) -> str:
    """The first word of a block's label, in lower case and without the version 3 of Python.

    The labels `Python3`, `{.python}`, `{python, echo=FALSE}` and `python title="a.py"` all name the
    language python. Empty without a label.
    """
    info = _INFO.match(label)
    return _VERSION.sub(r"\1", info[1].lower()) if info else ""


def blocks(text: str, begin: int = 0) -> list[Block]:
    """The blocks of a text from index `begin` on, in order. A block within a block is its text."""
    lines = [_Line.of(match) for match in _FENCE.finditer(text, begin)]
    result: list[Block] = []
    unclosable: set[tuple[str, int, int]] = set()  # kinds of fences that no later line closes
    at = 0
    while at < len(lines):
        opening = lines[at]
        at += 1
        if not opening.opens:
            continue
        closing = _closing(lines, at, opening, unclosable)
        result.append(_block(text, opening, None if closing is None else lines[closing]))
        if closing is not None:
            at = closing + 1
        while at < len(lines) and lines[at].begin < result[-1].end:
            at += 1
    return result


def masked(text: str, among: Iterable[Block]) -> str:
    """The text with blocks replaced by spaces; its length does not change."""
    pieces: list[str] = []
    behind = 0
    for block in among:
        pieces += [text[behind : block.begin], " " * (block.end - block.begin)]
        behind = block.end
    return "".join([*pieces, text[behind:]])


def without(text: str, spans: Iterable[tuple[int, int]], begin: int = 0) -> str:
    """The text from index `begin` on, with each span replaced by a line break."""
    pieces: list[str] = []
    for first, last in spans:
        pieces.append(text[begin:first])
        begin = last
    return "\n".join([*pieces, text[begin:]])


def is_python(block: Block, languages: Collection[str] = PYTHON) -> bool:
    """True if the label of a block names one of these languages."""
    return block.language in languages


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line that begins with a fence."""

    begin: int
    end: int
    indent: str
    fence: str
    rest: str
    behind_tag: bool

    @classmethod
    def of(cls, match: re.Match[str]) -> _Line:
        behind_tag = match.start() > 0 and match.string[match.start() - 1] != "\n"
        indent, fence, rest = match.groups()
        return cls(match.start(), match.end(), indent, fence, rest, behind_tag)

    @property
    def opens(self) -> bool:
        return ANSWER_END not in self.rest and (self.fence[0] == "~" or "`" not in self.rest)

    @property
    def columns(self) -> int:
        return len(self.indent.expandtabs(4))

    def closes(self, opening: _Line, deeper: int) -> bool:
        return (
            not self.behind_tag
            and self.fence.startswith(opening.fence)
            and self.columns <= opening.columns + deeper
            and _ENDS.fullmatch(self.rest) is not None
        )


def _closing(
    lines: Sequence[_Line], at: int, opening: _Line, unclosable: set[tuple[str, int, int]]
) -> int | None:
    """Index, from `at` on, of the line that closes a fence; None if none does."""
    for deeper in (0, _DEEPER):
        # A failed search is not repeated, or some texts would take quadratic time.
        kind = (opening.fence, opening.columns, deeper)
        if kind in unclosable:
            continue
        for index in range(at, len(lines)):
            if lines[index].closes(opening, deeper):
                return index
        unclosable.add(kind)
    return None


def _block(text: str, opening: _Line, closing: _Line | None) -> Block:
    inside = min(opening.end + 1, len(text))
    if closing is None:
        end = code_end = max(text.rfind(ANSWER_END, inside), -1)
        if end < 0:
            end = code_end = len(text)
    else:
        code_end = closing.begin
        end = closing.begin + len(closing.indent) + len(closing.fence)
    margin = re.compile(rf"^[ \t]{{0,{len(opening.indent)}}}", re.MULTILINE)
    code = text[inside:code_end]
    if opening.indent:
        code = margin.sub("", code)
    return Block(
        label=opening.rest.strip(),
        code=code.removesuffix("\n"),
        begin=opening.begin,
        code_end=code_end,
        end=end,
        closed=closing is not None,
    )
