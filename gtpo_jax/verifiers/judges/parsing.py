"""Reads expressions with the parser of math-verify and evaluates them within bounds."""

from __future__ import annotations

import gc
import re

import sympy
from antlr4.atn.PredictionMode import PredictionMode
from antlr4.dfa.DFA import DFA
from latex2sympy2_extended import latex2sympy2
from latex2sympy2_extended.antlr_parser import PSParser

from gtpo_jax.verifiers.judges.building import built
from gtpo_jax.verifiers.judges.values import Expression

_CONFIG = latex2sympy2.ConversionConfig(lowercase_symbols=False)


# A letter below a power, `x^{2}`, which the quick parser takes for the name of a set. Behind the
# name of a function it is an argument, which braces would end; `e` is a number.
_GREEK = "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|omega|pi"
_BASE = re.compile(
    rf"(\\(?!(?:cdot|times|div|{_GREEK})(?![a-zA-Z]))[a-zA-Z]+\s*(?:[a-zA-Z]|\\[a-zA-Z]+)?|_\{{\w*\}})"
    rf"|((?!e)[a-zA-Z]|\\(?:{_GREEK})(?![a-zA-Z]))(?=\s*\^)"
)


# `i` and `e` count the terms of a sum that names them: then they are no constants.
_COUNTED = re.compile(r"\\(?:sum|prod)\s*_\s*\{?\s*([ie])\s*=")
_LETTER = re.compile(r"(?<![a-zA-Z\\])[a-z](?![a-zA-Z])")
_UNUSED = "kjnmlpqr"


class _Simple(latex2sympy2._Latex2Sympy):
    """The parser without the context of rules.

    If it finds a reading, that is the reading of the full parser, in a hundredth of the time.
    """

    def create_parser(self, latex_str: str):
        parser = super().create_parser(latex_str)
        parser._interp.predictionMode = PredictionMode.SLL
        return parser


# One of each construct: the parser builds its tables from the texts that it reads.
_LESSONS = (
    r"\frac{1}{2}+\sqrt[3]{x_{1}}-3",
    r"\sin^{2} x+\cos^{2} x-e^{2\cdot x}\cdot y",
    r"\log_{2}(8)\cdot\ln(x!)",
    r"2\cdot\begin{pmatrix}1&2\\3&4\end{pmatrix}",
    r"f(x+1)+|x|+\binom{n}{2}",
    r"\lfloor ((x))\rfloor",
    r"\sum_{k=1}^{n} k^{2}",
)


_MOST_STATES = 8_000
"""Most parser states to keep: with more, collecting garbage takes as long as an answer."""
_REST_EVERY = 50  # answers


def prepare() -> None:
    """Spends beforehand the time that the first use of every construct takes."""
    for lesson in _LESSONS:
        parsed(lesson)
    gc.collect()
    gc.freeze()


def rest(answers: int) -> None:
    """Cleans up between answers, so that no answer waits for it; `answers` is their number so far.

    The parser never forgets by itself what it has read.
    """
    if answers % _REST_EVERY:
        return
    automata = PSParser.decisionsToDFA
    if sum(len(automaton.states) for automaton in automata) > _MOST_STATES:
        automata[:] = [DFA(at, number) for number, at in enumerate(PSParser.atn.decisionToState)]
        PSParser.sharedContextCache.cache.clear()
        gc.unfreeze()
        prepare()
    else:
        gc.collect()
        gc.freeze()


def parsed(text: str) -> Expression | None:
    """The expression or matrix that a text spells out; None when it is none, or too large."""
    try:
        found = built(_tree(text))
        if isinstance(found, sympy.MatrixBase):
            return None if any(map(_is_no_number, found.flat())) else found
        return None if _is_no_number(found) else found
    except MemoryError:
        raise
    except Exception:  # a parser and sympy may raise anything for such texts
        return None


def _is_no_number(found: Expression) -> bool:
    return not isinstance(found, sympy.Expr) or found.has(sympy.nan, sympy.zoo)


def _tree(text: str) -> Expression:
    """The tree of an expression as it was written."""
    text = _with_index(text)
    with sympy.evaluate(False):
        try:
            braced = _BASE.sub(lambda found: found[1] or f"{{{found[2]}}}", text)
            return _Simple(is_real=True, config=_CONFIG).parse(braced)
        except (MemoryError, RecursionError):
            raise
        except Exception:
            return latex2sympy2.latex2sympy(
                text, is_real=True, normalization_config=None, conversion_config=_CONFIG
            )


def _with_index(text: str) -> str:
    """The text with another letter as the index of its sums, if the letter is a constant."""
    found = _COUNTED.search(text)
    letters = _LETTER.findall(text)
    other = next((letter for letter in _UNUSED if letter not in letters), None)
    if found is None or other is None:
        return text
    return _LETTER.sub(lambda m: other if m[0] == found[1] else m[0], text)
