"""Unit tests of programs: what passes, what does not, and what a program may try to pass anyway."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent import futures

import hypothesis
import pytest
from hypothesis import strategies

from gtpo_jax.tools import PythonExecutor, busy
from gtpo_jax.types import ToolResult, ToolStatus
from gtpo_jax.verifiers import unit_tests

PASSED, FAILED, ERROR = "passed", "failed", "error"

DOUBLE = "def double(x):\n    return 2 * x\n"


@pytest.fixture(scope="module")
def tool():
    with PythonExecutor(max_running=2) as tool:
        yield tool


def run(tool, solution, *tests, **options):
    return unit_tests.run_unit_tests(tool, solution, tests, **{"timeout": 20, **options})


def one(tool, solution, test="assert double(2) == 4", **options):
    return run(tool, solution, test, **options)[0]


def seen(outcome):
    return outcome.status.value, outcome.message


# Honest programs.


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


# Programs that cheat. None of them doubles; each is run on one test, which it would have to fail.

WRONG = "def double(x):\n    return 5\n"


@pytest.mark.parametrize("moment", ["at import", "in the call"])
@pytest.mark.parametrize(
    "leave",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "raise SystemExit(0)",
        "exit()",
        "print('passed'); quit(0)",
        "import os; os.execv('/bin/true', ['true'])",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    ],
)
def test_leaving_early_is_no_pass(tool, leave, moment):
    solution = WRONG + leave if moment == "at import" else f"def double(x):\n    {leave}"
    assert one(tool, solution).status.value == ERROR


def test_exit_handler_does_not_turn_a_failure_around(tool):
    solution = "import atexit, os\natexit.register(os._exit, 0)\n" + WRONG
    assert one(tool, solution).status.value == FAILED


def test_thread_that_leaves_is_no_pass(tool):
    solution = """\
import os, threading, time
def double(x):
    threading.Thread(target=os._exit, args=(0,)).start()
    time.sleep(5)
"""
    assert one(tool, solution).status.value == ERROR


def test_exception_hook_does_not_hide_a_failure(tool):
    solution = "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\n" + WRONG
    assert one(tool, solution).status.value == FAILED


@pytest.mark.parametrize(
    "text", ["passed", "OK", "0" * 32 + " passed", "{key} passed", "\\n\\n.\\n1 passed in 0.1s"]
)
def test_printing_success_is_no_pass(tool, text):
    leave = f"print('{text}', flush=True)\nimport os\nos._exit(0)"
    assert one(tool, WRONG + leave).status.value == ERROR
    assert one(tool, f"print('{text}')\n" + WRONG).status.value == FAILED


DUMP = """\
import gc, linecache, os, re, sys
found = [str(v) for v in linecache.cache.values()]
frame = sys._getframe()
while frame:
    found += [str(frame.f_locals), str(frame.f_globals), str(frame.f_code.co_consts)]
    frame = frame.f_back
found += [str(o) for o in gc.get_objects() if isinstance(o, (tuple, list, dict)) and len(o) < 99]
keys = set(re.findall("[0-9a-f]{32}", "".join(found)))
"""


def test_dump_of_all_that_is_found_is_no_pass(tool):
    dump = DUMP + "assert keys\nfor key in keys: print(key, 'passed', flush=True)\nos._exit(0)"
    assert seen(one(tool, dump)) == (ERROR, "the program ended before its test did")


@pytest.mark.parametrize(
    "method",
    [
        "return True",
        "return 1",
        "return not isinstance(other, type)",
        "return type(other) in (int, float, list, tuple, dict, str)",
    ],
)
@pytest.mark.parametrize(
    ("make", "test"),
    [
        ("Any()", "assert double(2) == 4"),
        ("Any()", "assert 4 == double(2)"),
        ("Any()", "assert double('a') == 'aa' and double([1]) == [1, 1]"),
        ("[1, Any()]", "assert double([1]) == [1, 1]"),
        ("(1, [Any()])", "assert double(1) == (1, [1])"),
        ("{'a': Any()}", "assert double(1) == {'a': 2}, 'text'"),
        ("Any()", "assert double({}) == {}"),
        ("Any()", "assert all(double(x) == y for x, y in [(1, 2)])"),
        ("Any()", "def check(candidate):\n    assert candidate(1) == 2\ncheck(double)"),
    ],
)
def test_object_equal_to_everything_is_no_pass(tool, method, make, test):
    solution = f"class Any:\n    def __eq__(self, other): {method}\ndef double(x): return {make}"
    message = "AssertionError: compared with an object that equals everything"
    assert seen(one(tool, solution, test)) == (FAILED, message)


def test_honest_equality_of_any_kind_passes(tool):
    solution = """\
import collections, dataclasses, decimal, fractions
@dataclasses.dataclass
class Point:
    x: int
class Half:
    def __eq__(self, other): return other.half == 0.5 if hasattr(other, 'half') else other == 0.5
class Strict:
    def __eq__(self, other): return self.x == other.x
    x = 1
def values():
    return [
        (Point(1), Point(1)), (Half(), 0.5), (0.5, Half()), (Strict(), Strict()),
        ([Point(1)], [Point(1)]), (True, 1), (1, 1.0), (0.5, 0.5), (None, None), (b'a', b'a'),
        (fractions.Fraction(1, 2), 0.5), (decimal.Decimal(1), 1), ({1, 2}, {2, 1}),
        (frozenset('a'), {'a'}), (collections.Counter('a'), {'a': 1}), (range(2), range(2)),
        (collections.namedtuple('P', 'x')(1), (1,)), ({1: {2: [3]}}, {1: {2: [3]}}),
        (float('inf'), float('inf')), (1e300, 1e300), (2**70, 2**70), (int, int), (object, object),
    ]
"""
    test = "for a, b in values():\n    assert a == b, (a, b)\nassert not 1 == 2"
    assert seen(one(tool, solution, test)) == (PASSED, "")


@pytest.mark.parametrize(
    "patch",
    [
        "def all(values): return True",
        "import builtins; builtins.all = lambda values: True",
        "import builtins; vars(builtins).update(all=lambda values: True)",
        "__builtins__.all = lambda values: True",
        "class bool(int): pass\nimport builtins; builtins.bool = lambda v: True",
        "import builtins; builtins.exec = builtins.compile = lambda *a, **k: None",
        "import builtins; builtins.AssertionError = SystemExit",
        "import os; os._exit = os.write = lambda *a: None",
        "import sys; sys.exit = lambda *a: None; sys.stdout = open('/dev/null', 'w')",
    ],
)
def test_patched_builtins_do_not_reach_the_test(tool, patch):
    outcome = one(tool, f"{patch}\n{WRONG}", "assert all([double(2) == 4])")
    assert outcome.status.value == FAILED


def test_catching_the_assertion_is_no_pass(tool):
    solution = """\
import sys
sys.excepthook = lambda *arguments: None
def double(x):
    try:
        return 5
    except AssertionError:
        return 4
    finally:
        sys.stderr = sys.stdout = None
"""
    assert one(tool, solution).status.value == FAILED


def test_trace_function_set_before_the_test_is_gone_in_it(tool):
    solution = """\
import sys
def jump(frame, event, arg):
    if frame.f_code.co_filename == '<test>' and event == 'line' and frame.f_lineno == 1:
        frame.f_lineno = 2
    return jump
sys.settrace(jump)
sys.settrace = lambda f: None
"""
    test = "assert double(2) == 4\npass"
    assert one(tool, solution + WRONG, test).status.value == FAILED


class Interpreter:
    """A tool that forbids nothing."""

    def submit(self, code, *, timeout=None):
        command = [sys.executable, "-I", "-S", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        status = ToolStatus.ERROR if done.returncode else ToolStatus.OK
        future = futures.Future()
        future.set_result(ToolResult(status=status, stdout=done.stdout, stderr=done.stderr))
        return future


def test_forks_that_guess_are_no_pass():
    tool = Interpreter()
    assert one(tool, DOUBLE).passed
    solution = """\
import os
def double(x):
    for guess in range(3, 6):
        pid = os.fork()
        if pid == 0:
            return guess
        if os.waitpid(pid, 0)[1] == 0:
            os._exit(0)
    os._exit(0)
"""
    outcome = one(tool, solution)
    assert seen(outcome) == (ERROR, "the program ended before its test did")


def test_module_of_the_test_cannot_be_read_ahead(tool):
    solution = """\
import linecache, re, __main__
text = str(linecache.cache.get('<test>')) + str(linecache.getlines('<test>'))
if '4711' in text or hasattr(__main__, 'judge') or 'key' in vars(__main__):
    raise RuntimeError('found')
def double(x): return 4711
"""
    assert one(tool, solution, "assert double(2) == 4711").passed


# Tools of all kinds.


class Scripted:
    """A tool whose calls end as they are told to."""

    def __init__(self, *results, busy_times=0):
        self.results, self.busy_times, self.codes = list(results), busy_times, []

    def submit(self, code, *, timeout=None):
        if self.busy_times:
            self.busy_times -= 1
            raise busy.ExecutorBusy("full")
        self.codes.append((code, timeout))
        future = futures.Future()
        result = self.results.pop(0)
        if result is None:
            future.cancel()
        elif isinstance(result, Exception):
            future.set_exception(result)
        elif isinstance(result, ToolResult):
            future.set_result(result)
        return future


@pytest.mark.parametrize(
    ("result", "status", "message"),
    [
        (ToolResult(status=ToolStatus.OK), ERROR, "the program ended before its test did"),
        (ToolResult(status=ToolStatus.ERROR, stderr="a\nKeyError: 1\n"), ERROR, "KeyError: 1"),
        (ToolResult(status=ToolStatus.ERROR), ERROR, "error"),
        (ToolResult(status=ToolStatus.CRASH, stderr="killed"), ERROR, "killed"),
        (ToolResult(status=ToolStatus.TIMEOUT, stderr="note"), "timeout", "timeout"),
        (ToolResult(status=ToolStatus.CPU_LIMIT), "timeout", "cpu limit"),
        (ToolResult(status=ToolStatus.MEMORY, stderr="MemoryError"), "limit", "memory"),
        (ToolResult(status=ToolStatus.OUTPUT_LIMIT), "limit", "output limit"),
        (ToolResult(status=ToolStatus.INFRA_ERROR, stderr="down"), "unknown", "down"),
        (RuntimeError("broken"), "unknown", "RuntimeError: broken"),
        (None, "unknown", "the call was canceled"),
    ],
)
def test_every_end_of_a_call_has_one_outcome(result, status, message):
    outcome = one(Scripted(result), DOUBLE)
    assert seen(outcome) == (status, message)
    assert outcome.result is (result if isinstance(result, ToolResult) else None)


def test_every_tool_status_is_judged():
    for status in ToolStatus:
        outcome = one(Scripted(ToolResult(status=status, stdout="passed\n")), DOUBLE)
        assert not outcome.passed
        assert (outcome.status.value == "unknown") == (status is ToolStatus.INFRA_ERROR)


@pytest.mark.parametrize("status", [s for s in ToolStatus if s is not ToolStatus.OK])
def test_signed_report_of_a_call_that_did_not_end_well_is_no_pass(tool, status):
    """As of a program that signs and then hangs."""

    class Failing:
        def submit(self, code, *, timeout=None):
            result = tool.submit(code, timeout=timeout).result()
            future = futures.Future()
            future.set_result(ToolResult(status=status, stdout=result.stdout))
            return future

    assert one(tool, DOUBLE).passed and not one(Failing(), DOUBLE).passed


@hypothesis.given(strategies.text(alphabet="0af \nps", max_size=80))
def test_unsigned_output_is_never_a_report(stdout):
    status, message = unit_tests._report("0123456789abcdef" * 2, stdout)
    assert (status.value, message) == (ERROR, "the program ended before its test did")


def test_keys_differ_between_calls():
    tool = Scripted(*[ToolResult(status=ToolStatus.OK)] * 3)
    run(tool, DOUBLE, *["assert True"] * 3, timeout=1.5)
    assert len({code for code, _ in tool.codes}) == 3
    assert {timeout for _, timeout in tool.codes} == {1.5}


def test_busy_tool_is_waited_for():
    tool = Scripted(*[ToolResult(status=ToolStatus.OK)] * 2, busy_times=3)
    assert len(run(tool, DOUBLE, "pass", "pass")) == 2 and tool.busy_times == 0


def test_many_programs_are_submitted_first_and_collected_later(tool):
    begin = time.monotonic()
    sleep = "import time\ntime.sleep(0.2)\n"
    runs = [
        unit_tests.submit_unit_tests(tool, sleep + f"x = {i}", ["assert x % 2 == 0", "pass"])
        for i in range(4)
    ]
    assert time.monotonic() - begin < 0.2
    assert not any(run.done() for run in runs)
    outcomes = [[outcome.passed for outcome in run.result(timeout=20)] for run in runs]
    assert outcomes == [[True, True], [False, True]] * 2


def test_result_is_set_once_whichever_call_ends_last():
    tool = Scripted(*["pending"] * 8)
    calls = []
    submit = tool.submit

    def keep(code, *, timeout=None):
        calls.append(submit(code, timeout=timeout))
        return calls[-1]

    tool.submit = keep
    gathered = unit_tests.submit_unit_tests(tool, DOUBLE, ["pass"] * 8)
    ends = [
        threading.Thread(target=call.set_result, args=[ToolResult(status=ToolStatus.TIMEOUT)])
        for call in reversed(calls)
    ]
    for thread in ends[:-1]:
        thread.start()
        thread.join()
    assert not gathered.done() and not gathered.cancel()
    ends[-1].start()
    assert [o.status.value for o in gathered.result(timeout=20)] == ["timeout"] * 8


def test_tool_that_refuses_leaves_no_call_behind():
    first = futures.Future()

    class Closing:
        def submit(self, code, *, timeout=None):
            if first.done() or self.calls:
                raise RuntimeError("closed")
            self.calls += 1
            return first

        calls = 0

    with pytest.raises(RuntimeError, match="closed"):
        run(Closing(), DOUBLE, "pass", "pass")
    assert first.cancelled()


def test_arguments_are_checked(tool):
    with pytest.raises(ValueError, match="tests is empty"):
        run(tool, DOUBLE)
    with pytest.raises(TypeError, match="tests must be a sequence of texts"):
        unit_tests.run_unit_tests(tool, DOUBLE, "assert True")
    with pytest.raises(TypeError, match="names must be a sequence of texts"):
        run(tool, DOUBLE, "pass", names="double")
    with pytest.raises(TypeError, match="solution must be a str, got bytes"):
        run(tool, b"", "pass")
    with pytest.raises(TypeError, match="setup must be a str, got NoneType"):
        run(tool, "", "pass", setup=None)
