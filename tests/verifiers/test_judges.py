"""Parts of the judge of mathematical answers, each against a reference of its own."""

import contextlib
import itertools
import math
import random
import signal
import threading
import time

import pytest

pytest.importorskip("math_verify")

import sympy
from latex2sympy2_extended import latex2sympy2

from gtpo_jax.verifiers.judges import agreement, budget, parsing, proving, sets, structure, values

X, Y = sympy.symbols("x y", real=True)


def test_processor_time_that_is_spent_ends_the_work():
    before = signal.getsignal(signal.SIGPROF)
    begun = time.process_time()
    with pytest.raises(budget.Spent), budget.processor_seconds(0.05):
        while True:
            with contextlib.suppress(Exception):  # what a library catches is no limit of time
                math.factorial(500)
    assert 0.04 <= time.process_time() - begun < 1.0
    assert signal.getsignal(signal.SIGPROF) is before
    with budget.processor_seconds(0.05):
        time.sleep(0.1)  # costs none


def test_limit_is_left_to_others_outside_of_the_main_thread():
    done = []

    def work():
        with budget.processor_seconds(0.01):
            begun = time.thread_time()
            while time.thread_time() - begun < 0.05:
                pass
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


VALUED = {
    "x**2 - 3*x + 1/7": lambda x: x**2 - 3 * x + 1 / 7,
    "sqrt(x**2 + 1)/x": lambda x: math.sqrt(x**2 + 1) / x,
    "exp(-x)*sin(3*x)": lambda x: math.exp(-x) * math.sin(3 * x),
    "log(x**2 + 1, 3)": lambda x: math.log(x**2 + 1, 3),
    "Abs(x) + floor(x) - ceiling(2*x)": lambda x: abs(x) + math.floor(x) - math.ceil(2 * x),
    "Mod(x, 3)": lambda x: x % 3,
    "Max(x, 1) - Min(x, 2)": lambda x: max(x, 1) - min(x, 2),
    "gamma(x**2 + 1)": lambda x: math.gamma(x**2 + 1),
    "binomial(x, 3)": lambda x: x * (x - 1) * (x - 2) / 6,
    "atan(x) + sec(x) + cosh(x)": lambda x: math.atan(x) + 1 / math.cos(x) + math.cosh(x),
}


@pytest.mark.parametrize("text", VALUED)
def test_values_are_those_of_floating_point(text):
    expression: values.Expression = sympy.parse_expr(text, {"x": X}, evaluate=False)
    for point in (sympy.Rational(2, 7), sympy.Rational(-17, 5)):
        got = values.Evaluation({X: point}, 30)(expression)
        assert complex(got).imag == 0
        assert math.isclose(complex(got).real, VALUED[text](float(point)), rel_tol=1e-12)


TOO_LARGE = [
    *(r"9^{9^{9^{9}}}", r"1.1^{1.1^{1.1^{500}}}", r"(10^{7})!", r"\binom{10^{9}}{5\cdot 10^{8}}"),
    *(
        r"\sin(e^{e^{e^{e}}})",
        r"e^{-e^{e^{e^{e}}}}",
        r"0\cdot 2^{99999999}",
        r"(2\cdot x)^{10^{9}}",
        r"\sin(" * 9 + "i" + ")" * 9,
    ),
    *(r"\exp(\exp(\exp(\exp(2))))", r"\sqrt{10^{9999}+7}", r"\lfloor \pi\cdot 10^{2000}\rfloor"),
]


@pytest.mark.parametrize("text", TOO_LARGE)
def test_what_is_too_large_is_not_computed(text):
    parsing.prepare()
    begun = time.process_time()
    assert parsing.parsed(text) is None
    assert time.process_time() - begun < 0.5


def test_large_values_are_exact():
    assert parsing.parsed(r"2^{65536}-3") == 2**65536 - 3
    assert parsing.parsed(r"\sqrt{10^{2020}}") == 10**1010
    assert parsing.parsed(r"\binom{10^{9}}{3}") == math.comb(10**9, 3)
    assert parsing.parsed(r"0.1+0.2") == sympy.Rational(3, 10)


@pytest.mark.parametrize(
    "text",
    [
        *(r"x^{2}+2\cdot x+1", r"\sin x^{2}", r"\sin\pi^{2}", r"\frac{\pi^{2}}{6}", r"xy^{2}z^{3}"),
        *(r"e^{x^{2}}", r"x_{1}^{2}", r"\log_{x^{2}} 3", r"a_{n}+1", r"2\pi r^{2}h", r"|x^{2}|"),
        *(r"\cos(x+1)^{2}\cdot\cos x", r"\begin{pmatrix}x^{2}&1\end{pmatrix}", r"(x^{2})^{3}"),
    ],
)
def test_quick_parser_reads_what_the_full_one_reads(text):
    config = latex2sympy2.ConversionConfig(lowercase_symbols=False)
    with sympy.evaluate(False):
        full = latex2sympy2.latex2sympy(
            text, is_real=True, normalization_config=None, conversion_config=config
        )
    assert sympy.srepr(parsing._tree(text)) == sympy.srepr(full)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (sympy.sqrt(2) + sympy.sqrt(3), sympy.sqrt(5 + 2 * sympy.sqrt(6)), True),
        (sympy.exp(sympy.pi * sympy.sqrt(163)), sympy.Integer(640320) ** 3 + 744, False),
        (sympy.sqrt(2), sympy.sqrt(2) + sympy.Rational(1, 10**90), False),
        (sympy.sin(2 * X), 2 * sympy.sin(X) * sympy.cos(X), True),
        (sympy.sqrt(X**2), X, False),
        (sympy.Abs(X * Y), X * Y, False),
        (sympy.Abs(X - 3000), 3000 - X, False),
        (X**4000 - 1, (X**2000 - 1) * (X**2000 + 1), True),
        (X ** (10**9), X, None),
        (sympy.Integral(X), X, None),
    ],
)
def test_values_say_what_agrees(left, right, same):
    assert agreement.agree(left, right) is same


@pytest.mark.parametrize(
    ("left", "right", "signed", "same"),
    [
        (X - 2 * Y, 3 * X - 6 * Y, True, True),
        (X - 2 * Y, 2 * Y - X, True, False),
        (X - 2 * Y, 2 * Y - X, False, True),
        (sympy.sqrt(2) * X - 2, X - sympy.sqrt(2), True, True),
        (X**2 - 4, X - 2, False, False),
        (X - X, X - X, False, False),
    ],
)
def test_values_say_what_is_proportional(left, right, signed, same):
    assert agreement.proportional(left, right, signed=signed) is same


def test_what_would_be_multiplied_out_for_long_is_not_proved():
    assert proving.proved(sympy.floor(X + 1), sympy.floor(X) + 1)
    begun = time.process_time()
    assert not proving.proved((X + 1) ** 10**6 + sympy.floor(X), (X + 1) ** 10**6)
    assert time.process_time() - begun < 0.1


def random_set(draws):
    """A set of numbers as a text and as a function that knows its elements."""
    pieces, tests = [], []
    for _ in range(draws.randint(1, 3)):
        low, high = sorted(draws.sample(range(-3, 4), 2))
        opening, closing = draws.choice("(["), draws.choice(")]")
        pieces.append(f"{opening}{low},{high}{closing}")
        tests.append(
            lambda x, low=low, high=high, opening=opening, closing=closing: (
                low < x < high or (x == low and opening == "[") or (x == high and closing == "]")
            )
        )
    if draws.random() < 0.3:
        hole = draws.randint(-3, 3)
        return rf"x \ne {hole}, x \in {pieces[0]}", lambda x: x != hole and tests[0](x)
    return r"\cup ".join(pieces), lambda x: any(test(x) for test in tests)


def test_sets_are_the_same_when_they_hold_the_same_numbers():
    draws = random.Random(0)
    grid = [half / 2 for half in range(-9, 10)]  # every end and every gap between two
    made = [random_set(draws) for _ in range(60)]
    nodes = [structure.read(text) for text, _ in made]
    seen = set()
    for (left, (_, holds)), (right, (_, has)) in itertools.combinations(
        zip(nodes, made, strict=True), 2
    ):
        same = all(holds(x) == has(x) for x in grid)
        assert sets.same_set(left, right, 1e-6) is same
        seen.add(same)
    assert seen == {True, False}
