"""Generated problems that need the tool, most of them in more than one turn.

| family | question | what has to be learned |
|---|---|---|
| arithmetic | What is a*b+c? | copy the expression into a call |
| word | Ann buys b bags of c pens... | choose the operation |
| remainder | remainder of a*b divided by m | the right operator |
| gcd | gcd of a and b | repair an error, or import at once |
| branch | compute a*b; if even add c, if odd subtract d | a call that depends on an output |
| chain | k steps of "if even halve, if odd triple and add 1" | several dependent calls |

Demonstrators hold a misconception more often than not: imitation alone learns the misconception,
and reinforcement has to move the most likely choice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import random
from collections.abc import Callable

from gtpo_jax.tasks.source import Answer, Call, Noise, Script, with_noise
from gtpo_jax.types import Problem

HELD_OUT_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Case:
    """A question, its answer, and what the demonstrator needs to know."""

    question: str
    answer: int
    demonstrate: Callable[[random.Random], Script]


def arithmetic(rng: random.Random) -> Case:
    a, b, c = rng.randint(10, 99), rng.randint(10, 99), rng.randint(10, 99)
    sign = rng.choice("+-")
    expression = f"{a}*{b}{sign}{c}"
    question = rng.choice(("What is {}?", "Compute {}.", "Find the value of {}."))

    def script(rng: random.Random) -> Script:
        wrong = rng.random() < 0.27
        output = yield Call(code=f"print({a}+{b}{sign}{c})" if wrong else f"print({expression})")
        yield Answer(text=output)

    return Case(question.format(expression), a * b + (c if sign == "+" else -c), script)


def word(rng: random.Random) -> Case:
    b, c = rng.randint(2, 9), rng.randint(10, 99)
    name = rng.choice(("Ann", "Ben", "Eva", "Tom"))
    thing = rng.choice(("pens", "nuts", "eggs"))
    kind = rng.choice(("buys", "sells", "packs"))
    if kind == "packs":
        k = rng.randint(2, 9)
        question = (
            f"{name} packs {c} {thing} in each of {b} boxes and loses {k}. How many are left?"
        )
        right, wrong = f"{c}*{b}-{k}", f"{c}*{b}+{k}"
    else:
        a = rng.randint(c * b, 2000)
        question = f"{name} has {a} {thing}. {name} {kind} {b} bags of {c}. How many now?"
        signs = "+-" if kind == "buys" else "-+"
        right, wrong = f"{a}{signs[0]}{b}*{c}", f"{a}{signs[1]}{b}*{c}"

    def script(rng: random.Random) -> Script:
        output = yield Call(code=f"print({wrong if rng.random() < 0.55 else right})")
        yield Answer(text=output)

    left, operator, rest = _split(right)
    answer = left + rest if operator == "+" else left - rest
    return Case(question, answer, script)


def remainder(rng: random.Random) -> Case:
    a, b, m = rng.randint(10, 99), rng.randint(10, 99), rng.randint(3, 99)

    def script(rng: random.Random) -> Script:
        output = yield Call(code=f"print({a}*{b}{'//' if rng.random() < 0.55 else '%'}{m})")
        yield Answer(text=output)

    return Case(f"What is the remainder of {a}*{b} divided by {m}?", a * b % m, script)


def gcd(rng: random.Random) -> Case:
    factor = rng.randint(2, 12)
    a, b = factor * rng.randint(2, 60), factor * rng.randint(2, 60)

    def script(rng: random.Random) -> Script:
        if rng.random() < 0.75:
            yield Call(code=f"print(gcd({a},{b}))")
            if rng.random() < 0.55:
                yield Answer(text=str(rng.randint(1, 12)))
                return
        output = yield Call(code=f"import math\nprint(math.gcd({a},{b}))")
        yield Answer(text=output)

    return Case(f"Find the gcd of {a} and {b}.", math.gcd(a, b), script)


def branch(rng: random.Random) -> Case:
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    c, d = rng.randint(2, 9), rng.randint(2, 9)
    product = a * b

    def script(rng: random.Random) -> Script:
        output = yield Call(code=f"print({a}*{b})")
        if rng.random() < 0.4:
            yield Answer(text=output)
            return
        even = (product % 2 == 0) ^ (rng.random() < 0.25)
        output = yield Call(code=f"print({output}{f'+{c}' if even else f'-{d}'})")
        yield Answer(text=output)

    question = f"Compute {a}*{b}. If it is even add {c}, if odd subtract {d}."
    return Case(question, product + c if product % 2 == 0 else product - d, script)


def chain(rng: random.Random) -> Case:
    start, steps = rng.randint(10, 299), rng.randint(2, 3)

    def script(rng: random.Random) -> Script:
        value = str(start)
        for _ in range(steps - 1 if rng.random() < 0.4 else steps):
            even = (int(value) % 2 == 0) ^ (rng.random() < 0.1)
            value = yield Call(code=f"print({value}//2)" if even else f"print({value}*3+1)")
            if not value.isdecimal():  # the tool ran out of time, say
                break
        yield Answer(text=value)

    answer = start
    for _ in range(steps):
        answer = answer // 2 if answer % 2 == 0 else answer * 3 + 1
    question = (
        f"Start with {start}. Do {steps} times: if even halve it, if odd triple it and add 1."
    )
    return Case(question, answer, script)


def _split(expression: str) -> tuple[int, str, int]:
    """Value of the left and right operand of a sum or difference in which products bind tighter."""
    operator = "+" if "+" in expression else "-"
    left, right = expression.split(operator)
    return math.prod(map(int, left.split("*"))), operator, math.prod(map(int, right.split("*")))


FAMILIES: dict[str, Callable[[random.Random], Case]] = {
    "arithmetic": arithmetic,
    "word": word,
    "remainder": remainder,
    "gcd": gcd,
    "branch": branch,
    "chain": chain,
}


def is_held_out(question: str) -> bool:
    """A fixed tenth of all questions, by hash, belongs to evaluation, whatever the seed."""
    digest = hashlib.sha256(question.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratedTask:
    """Problems of the families in equal shares.

    Streams with different names share no random number.
    """

    seed: int
    families: tuple[str, ...] = tuple(FAMILIES)
    noise: Noise = dataclasses.field(default_factory=Noise)

    def __post_init__(self):
        unknown = set(self.families) - set(FAMILIES)
        if unknown or not self.families:
            raise ValueError(
                f"families must be among {sorted(FAMILIES)}, got {sorted(unknown) or 'none'}"
            )

    def train_problem(self, index: int) -> Problem:
        return self._problem(*self._case("train", index, held_out=False))

    def held_out(self, count: int) -> list[Problem]:
        cases = (self._case("held-out", index, held_out=True) for index in range(count))
        return [self._problem(*case) for case in cases]

    def demonstration(self, index: int) -> tuple[Problem, Script]:
        family, case = self._case("demonstration", index, held_out=False)
        rng = self._rng("demonstrator", index)
        script = with_noise(case.demonstrate(rng), str(case.answer), rng, self.noise)
        return self._problem(family, case), script

    def _case(self, stream: str, index: int, *, held_out: bool) -> tuple[str, Case]:
        rng = self._rng(stream, index)
        family = self.families[index % len(self.families)]
        while True:
            case = FAMILIES[family](rng)
            if is_held_out(case.question) == held_out:
                return family, case

    def _problem(self, family: str, case: Case) -> Problem:
        return Problem(
            id=case.question, question=case.question, answer=str(case.answer), family=family
        )

    def _rng(self, stream: str, index: int) -> random.Random:
        return random.Random(f"{self.seed}/{stream}/{index}")
