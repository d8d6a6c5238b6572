"""Fenced blocks of Markdown in what a model wrote.

A fence is a line of three or more backticks or tildes; it may be indented, and stand behind an
`<answer>` tag. Its block ends at a line of at least as many of the same sign and nothing else but
an `</answer>` tag, that is not indented deeper: a fence in a docstring does not end the block. If
no such line follows, one that is indented by up to three columns more ends it, as in CommonMark;
and if none does, the block is not closed and ends before the last `</answer>`, or with the text.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence

ANSWER, ANSWER_END = "<answer>", "</answer>"

PYTHON = ("python", "py", "ipython", "tool_code")
"""Languages of blocks that hold Python, as `language` gives them."""

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
"""Columns by which a fence that closes may be indented deeper, where no other one closes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block. Places are indices of the text."""

    label: str  # what stands behind the opening fence, without the spaces around it
    code: str  # the lines inside, without the indentation of the opening fence
    begin: int  # of the opening fence, its indentation included
    held: int  # where the line of the closing fence begins, or the end
    end: int  # behind the closing fence
    closed: bool

    @property
    def language(self) -> str:
        return language(self.label)

    @property
    def labeled_well(self) -> bool:
        """Nothing but attributes, a file or one word follows the language, such as no code."""
        found = _INFO.match(self.label)
        rest = found[2] if found else ""
        return any(pattern.fullmatch(rest) for pattern in (_ATTRIBUTES, _ONE_WORD))


def language(label: str) -> str:
    """The first word of the label of a block, in lower case and without the version 3 of Python.

    Labels such as `Python3`, `{.python}`, `{python, echo=FALSE}` and `python title="a.py"` all name
    the language python. Empty without a label.
    """
    found = _INFO.match(label)
    return _VERSION.sub(r"\1", found[1].lower()) if found else ""


def blocks(text: str, begin: int = 0) -> list[Block]:
    """The blocks of a text from a place on, in their order; a block within a block is its text."""
    lines = [_Line.of(found) for found in _FENCE.finditer(text, begin)]
    found: list[Block] = []
    hopeless: set[tuple[str, int, int]] = set()  # fences that nothing closes any more
    at = 0
    while at < len(lines):
        opening = lines[at]
        at += 1
        if not opening.opens:
            continue
        closing = _closing(lines, at, opening, hopeless)
        found.append(_block(text, opening, None if closing is None else lines[closing]))
        if closing is not None:
            at = closing + 1
        while at < len(lines) and lines[at].begin < found[-1].end:
            at += 1
    return found


def masked(text: str, among: Iterable[Block]) -> str:
    """The text, as long as it was, with spaces in the places of blocks."""
    pieces: list[str] = []
    behind = 0
    for block in among:
        pieces += [text[behind : block.begin], " " * (block.end - block.begin)]
        behind = block.end
    return "".join([*pieces, text[behind:]])


def without(text: str, spans: Iterable[tuple[int, int]], begin: int = 0) -> str:
    """The text from a place on, with a line break in the place of each span."""
    pieces: list[str] = []
    for first, last in spans:
        pieces.append(text[begin:first])
        begin = last
    return "\n".join([*pieces, text[begin:]])


def is_python(block: Block, languages: Collection[str] = PYTHON) -> bool:
    """Whether the label of a block says that it is Python."""
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
    def of(cls, found: re.Match[str]) -> _Line:
        behind_tag = found.start() > 0 and found.string[found.start() - 1] != "\n"
        indent, fence, rest = found.groups()
        return cls(found.start(), found.end(), indent, fence, rest, behind_tag)

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
    lines: Sequence[_Line], at: int, opening: _Line, hopeless: set[tuple[str, int, int]]
) -> int | None:
    """Index of the line that closes a fence, from a line on; None if none does."""
    for deeper in (0, _DEEPER):
        # A search in vain is not made again, so that no text takes quadratic time.
        kind = (opening.fence, opening.columns, deeper)
        if kind in hopeless:
            continue
        for index in range(at, len(lines)):
            if lines[index].closes(opening, deeper):
                return index
        hopeless.add(kind)
    return None


def _block(text: str, opening: _Line, closing: _Line | None) -> Block:
    inside = min(opening.end + 1, len(text))
    if closing is None:
        end = held = max(text.rfind(ANSWER_END, inside), -1)
        if end < 0:
            end = held = len(text)
    else:
        held = closing.begin
        end = closing.begin + len(closing.indent) + len(closing.fence)
    margin = re.compile(rf"^[ \t]{{0,{len(opening.indent)}}}", re.MULTILINE)
    code = margin.sub("", text[inside:held]) if opening.indent else text[inside:held]
    return Block(
        label=opening.rest.strip(),
        code=code.removesuffix("\n"),
        begin=opening.begin,
        held=held,
        end=end,
        closed=closing is not None,
    )
