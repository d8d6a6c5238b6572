"""Programs that cheat. None of them doubles; each is run on one test, which it has to fail."""

from __future__ import annotations

import subprocess
import sys
from concurrent import futures

import pytest

from gtpo_jax.types import ToolResult, ToolStatus
from tests.verifiers.programs import DOUBLE, ERROR, FAILED, PASSED, one, seen

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
