"""Unit tests of programs: which programs pass, and which do not."""

from __future__ import annotations

import pytest

from tests.verifiers.programs import DOUBLE, ERROR, FAILED, PASSED, one, run, seen


def test_outcomes_come_in_the_order_of_the_tests_with_their_reasons(tool):
    outcomes = run(
        tool,
        DOUBLE,
        "assert double(2) == 4",
        "assert double(2) == 5, 'two\\nlines'",
        "assert double(2) == 5",
        "double()",
        "half(2)",
        "assert [double(x) for x in (1, 2)] == [2, 4]\nassert double('a') == 'aa'",
    )
    assert [seen(outcome) for outcome in outcomes] == [
        (PASSED, ""),
        (FAILED, "AssertionError: two lines"),
        (FAILED, "AssertionError"),
        (ERROR, "TypeError: double() missing 1 required positional argument: 'x'"),
        (ERROR, "NameError: name 'half' is not defined"),
        (PASSED, ""),
    ]
    assert [outcome.passed for outcome in outcomes] == [True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("solution", "outcome"),
    [
        ("def f(:", (ERROR, "SyntaxError: invalid syntax")),
        ("{}['key']", (ERROR, "KeyError: 'key'")),
        ("a = '\ud800'", (ERROR, "surrogates not allowed")),
        ("a = '\0'", (ERROR, "null bytes")),
        ("import os; os.abort()", (ERROR, "killed by SIGABRT")),
        ("import os; os._exit(3)", (ERROR, "exit status 3")),
        ("x = []\nwhile True: x.append(bytearray(10**7))", ("limit", "MemoryError")),
        ("while True: print('x' * 1000)", ("limit", "output limit")),
        ("def f(): f()\nf()", (ERROR, "RecursionError: maximum recursion depth exceeded")),
        ("class E(Exception):\n  def __str__(self): raise E\nraise E", (ERROR, "E")),
        ("raise SystemExit", (ERROR, "SystemExit")),
        ("raise KeyboardInterrupt", (ERROR, "KeyboardInterrupt")),
    ],
)
def test_program_that_breaks_is_the_programs_error(tool, solution, outcome):
    status, message = seen(one(tool, solution, "pass"))
    assert status == outcome[0] and outcome[1] in message


def test_program_that_hangs_times_out(tool):
    outcome = one(tool, DOUBLE + "while True: pass", timeout=0.4)
    assert seen(outcome) == ("timeout", "timeout")


def test_each_test_has_a_process_of_its_own(tool):
    solution = "calls = []\ndef f():\n    calls.append(1)\n    return len(calls)"
    outcomes = run(tool, solution, *["assert f() == 1"] * 3)
    assert all(outcome.passed for outcome in outcomes)


@pytest.mark.parametrize(
    "solution",
    [
        "from __future__ import annotations\ndef f(a: undefined = 0): return 1",
        '"""A program."""\ndef f():\n    text = """\n  b\n"""\n    return text.count("b")',
        "def f(): return 1\nif __name__ == '__main__':\n    raise SystemExit(input())",
        "def f():\n\treturn 1",
        "def f(): return 1\r\n",
        "def f(): return 1 # \\",
        "f = lambda: 1  # no end of line",
        "import dataclasses, typing\n@dataclasses.dataclass\nclass A:\n"
        "  a: 'typing.ClassVar[int]' = 1\ndef f(): return A().a",
        "import pickle\nclass A: pass\ndef f(): return len([pickle.loads(pickle.dumps(A()))])",
        "import sys\nsys.stdout.write('no end of line')\nf = lambda: 1",
        "def f():\n    print('[1] passed')\n    return 1",
        "def f():\n    global g\n    g = 1\n    return g",
        "import sys\nsys.stdout = None\ndef f(): return 1",
        "import numbers\ndef f(): return 1\ndef all(x): return False",
    ],
)
def test_program_of_any_form_runs_unmodified(tool, solution):
    assert seen(one(tool, solution, "assert f() == 1 and all([1])")) == (PASSED, "")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("e = ValueError('a\\nb')\ne.add_note('a note')\nraise e", "ValueError: a b a note"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise ExceptionGroup('many', [KeyError(1)])", "ExceptionGroup: many (1 sub-exception)"),
        ("import os\nprint('no', file=__import__('sys').stderr)\nos._exit(3)", "exit status 3"),
    ],
)
def test_reason_of_a_program_that_fails_is_its_exception(tool, program, message):
    assert seen(one(tool, program)) == (ERROR, message)


def test_traceback_has_the_lines_of_the_program(tool):
    outcome = one(tool, "\n\ndef double(x):\n    return x / 0\n", setup="import math\n" * 9)
    assert outcome.message == "ZeroDivisionError: division by zero"
    frames = [line.strip() for line in outcome.result.stderr.splitlines() if " File " in line]
    assert frames == [
        'File "<test>", line 1, in <module>',
        'File "<solution>", line 4, in double',
    ]
    assert "    return x / 0" in outcome.result.stderr


def test_setup_is_seen_by_both_sides_and_is_not_replaced(tool):
    setup = "import math\ndef near(a, b): return math.isclose(a, b)\nclass Node: pass"
    honest = "def f(): return math.sqrt(4)\ndef node(): return Node()"
    test = "assert near(f(), 2)\nassert isinstance(node(), Node)"
    assert one(tool, honest, test, setup=setup).passed
    replaced = "def f(): return 3\ndef near(a, b): return True\ndef node(): return Node()"
    assert seen(one(tool, replaced, test, setup=setup)) == (FAILED, "AssertionError")


def test_names_given_are_all_that_the_test_sees_of_the_program(tool):
    solution = "def sum(a, b): return a * b\ndef helper(): return 1"
    assert one(tool, solution, "assert sum(2, 3) == 6", names=["sum"]).passed
    assert one(tool, solution, "assert sum([2, 3]) == 5").passed  # the builtin
    outcome = one(tool, solution, "helper()", names={"sum"})
    assert seen(outcome) == (ERROR, "NameError: name 'helper' is not defined")
    assert one(tool, DOUBLE, setup="def double(x): ...", names=["double"]).passed


def test_benchmarks_are_expressed_as_documented(tool):
    human_eval = "METADATA = {}\ndef check(candidate):\n    assert candidate(2) == 4\n"
    test = human_eval + "\ncheck(double)"
    assert one(tool, DOUBLE, test, names=["double"]).passed
    assert not one(tool, DOUBLE.replace("2", "3"), test, names=["double"]).passed


@pytest.mark.parametrize(
    ("setup", "test"), [("import no_such_module", "pass"), ("1 / 0", "pass"), ("", "assert (")]
)
def test_setup_or_test_that_is_broken_says_nothing_of_the_program(tool, setup, test):
    assert one(tool, DOUBLE, test, setup=setup).status.value == "unknown"
