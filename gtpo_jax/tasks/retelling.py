"""Retells a word problem with other names and things, and with an irrelevant sentence.

    Ann has 3 pens and buys 12 more pens. How many pens has Ann now?
    Tom has 3 nuts and buys 12 more nuts. The pool is 9 m long. How many nuts has Tom now?

A model memorizes a small set of problems. Retold each time, they teach what matters: which number
belongs to which word of the question.
"""

from __future__ import annotations

import collections
import dataclasses
import random
import re
from collections.abc import Iterable, Mapping

OTHER_WORD = 0.7
"""Share of the exchangeable words that are exchanged."""
BESIDE_THE_POINT = 0.3
"""Share of problems that get a sentence of another problem."""
MOST_WORDS = 45
"""Longest question, in words, that gets another sentence."""
_LONGEST_SENTENCE = 14
_COMMON = 120
"""Number of the most frequent words, which are never exchanged: they say what to do."""

_WORD = re.compile(r"[A-Za-z][a-z']+")
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")

_Kind = tuple[bool, bool]
"""Kind of a word: (it is capitalized like a name, it ends like a plural)."""


@dataclasses.dataclass(frozen=True)
class Wording:
    """Words and sentences with which problems can be retold."""

    common: frozenset[str]  # lower-case words that are never exchanged
    words: Mapping[_Kind, tuple[str, ...]]  # kind → interchangeable words
    sentences: tuple[str, ...]  # sentences with a number


def wording_of(questions: Iterable[str]) -> Wording:
    """Collects words that occur twice in a question, by kind, and sentences before its last."""
    questions = list(questions)
    frequency = collections.Counter(
        word.lower() for question in questions for word in set(_WORD.findall(question))
    )
    common = frozenset(word for word, _ in _most_frequent(frequency, _COMMON))
    words: dict[_Kind, dict[str, None]] = {}
    sentences: list[str] = []
    for question in questions:
        for word in _repeated(question, common):
            words.setdefault(_kind(word), {})[word] = None
        for sentence in _SENTENCE_END.split(question)[:-1]:
            short = len(sentence.split()) <= _LONGEST_SENTENCE
            if short and sentence.endswith(".") and re.search(r"\d", sentence):
                sentences.append(sentence)
    return Wording(common, {kind: tuple(each) for kind, each in words.items()}, tuple(sentences))


def retell(question: str, wording: Wording, rng: random.Random) -> str:
    """Retells the question; its numbers and its solution do not change."""
    question = exchange_words(question, wording, rng)
    return add_sentence(question, wording, rng) if rng.random() < BESIDE_THE_POINT else question


def exchange_words(question: str, wording: Wording, rng: random.Random) -> str:
    """Exchanges most of the words that the question repeats, at every occurrence."""
    others: dict[str, str] = {}
    for word in _repeated(question, wording.common):
        if rng.random() < OTHER_WORD and _kind(word) in wording.words:
            other = rng.choice(wording.words[_kind(word)])
            taken = other in others.values() or re.search(rf"\b{other}\b", question)
            if not taken:
                others[word] = other
    return _WORD.sub(lambda at: others.get(at[0], at[0]), question)


def add_sentence(question: str, wording: Wording, rng: random.Random) -> str:
    """Inserts a sentence of another problem before one of the question's, unless it is long."""
    parts = _SENTENCE_END.split(question)
    if len(parts) < 2 or len(question.split()) > MOST_WORDS or not wording.sentences:
        return question
    parts.insert(rng.randrange(len(parts)), rng.choice(wording.sentences))
    return " ".join(parts)


def _repeated(question: str, common: frozenset[str]) -> list[str]:
    """Words that occur at least twice in the question and are not common, in order."""
    counts = collections.Counter(_WORD.findall(question))
    return [word for word, n in counts.items() if n > 1 and word.lower() not in common]


def _kind(word: str) -> _Kind:
    return word[0].isupper(), word.endswith("s")


def _most_frequent(counts: collections.Counter[str], most: int) -> list[tuple[str, int]]:
    """Most frequent words, with ties in alphabetical order."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
