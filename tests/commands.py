"""The shell commands that the pages print."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_INLINE = re.compile(r"`((?:python -m|make|pip install|\.venv/bin/|launch/hosts/\S+ )[^`\n]*)`")
_ASSIGNED = re.compile(r'^(\w+)=("[^"]*"|\S+)$')


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: str
    text: str
    """The printed command, with its lines joined and without its remark."""
    files: str = ""
    """The assignment before it on the page that it uses, if any."""

    def words(self) -> list[str]:
        """The words before a pipe, as a shell reads them; `$files` is set."""
        _, _, value = self.files.partition("=")
        if "$files" in self.text and not value:
            raise ValueError(f"{self.page} does not say what $files is in `{self.text}`")
        text = self.text.replace("$files", value.strip('"'))
        lexer = shlex.shlex(text, posix=True, punctuation_chars="|")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words = list(lexer)
        return words[: words.index("|")] if "|" in words else words


def blocks(page: pathlib.Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    text = page.read_text(encoding="utf-8")
    return [block for name, block in _BLOCK.findall(text) if name == language]


def in_blocks(page: pathlib.Path) -> list[Command]:
    """The commands of the shell blocks of a page, in order."""
    found, files = [], ""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            text = _without_remark(line)
            if _ASSIGNED.match(text):
                files = text
            elif text:
                used = files if "$files" in text else ""
                found.append(Command(page.name, " ".join(text.split()), used))
    return found


def in_sentences(page: pathlib.Path) -> list[Command]:
    """The whole commands that a page names in its text."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [Command(page.name, found) for found in _INLINE.findall(text) if "…" not in found]


def _without_remark(line: str) -> str:
    quoted = False
    for index, sign in enumerate(line):
        if sign in "'\"":
            quoted = not quoted
        if sign == "#" and not quoted and line[:index].endswith(" "):
            return line[:index].strip()
    return line.strip()


OWN_MODULE = "# my_module.py\n"
"""First line of the blocks of a page that make the file `my_module.py` of a user."""


def own_module(page: pathlib.Path) -> str:
    """The file of a user that a page prints, block by block."""
    return "\n\n".join(block for block in blocks(page, "python") if block.startswith(OWN_MODULE))
