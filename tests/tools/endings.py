"""Programs that end in many ways, and what the policy reads of them."""

from __future__ import annotations

# name → (code, observation without the marks below a line of a traceback, which differ between
# versions of Python). The reason of a failure stands in it, whatever else was written.
ENDINGS: dict[str, tuple[str, str]] = {
    "exception": ("1 / 0", "ZeroDivisionError: division by zero"),
    "exception_behind_output": (
        "print('first')\nraise KeyError('a')",
        "first\nKeyError: 'a'",
    ),
    "message_of_lines": (
        "raise ValueError('first line\\nsecond line')",
        "ValueError: first line\nsecond line",
    ),
    "assertion_of_lines": ("assert 1 == 2, 'a\\nb'", "AssertionError: a\nb"),
    "notes": (
        "e = ValueError('bad')\ne.add_note('remember to sort')\ne.add_note('and\\nto count')\n"
        "raise e",
        "ValueError: bad\nremember to sort\nand\nto count",
    ),
    "group": (
        "raise ExceptionGroup('many', [ValueError('a\\nb'), ExceptionGroup('in', [KeyError(1)])])",
        "ExceptionGroup: many (2 sub-exceptions)\n  ValueError: a\n  b\n"
        "  ExceptionGroup: in (1 sub-exception)\n    KeyError: 1",
    ),
    "cause": (
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('bad') from e",
        "ZeroDivisionError: division by zero\n"
        "The above exception was the direct cause of the following exception:\nValueError: bad",
    ),
    "context": (
        "try:\n    {}['a']\nexcept KeyError:\n    raise ValueError('bad')",
        "KeyError: 'a'\nDuring handling of the above exception, another exception occurred:\n"
        "ValueError: bad",
    ),
    "no_context": (
        "try:\n    {}['a']\nexcept KeyError:\n    raise ValueError('bad') from None",
        "ValueError: bad",
    ),
    "exit_handler": (
        "import atexit, sys\natexit.register(lambda: print('bye', file=sys.stderr))\n1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "warning_behind": (
        "import atexit, warnings\natexit.register(warnings.warn, 'old')\n1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "own_hook": (
        "import sys\nsys.excepthook = lambda *a: print('mine')\nraise ValueError('bad')",
        "mine\nValueError: bad",
    ),
    "no_text": (
        "class Bad(Exception):\n    def __str__(self): raise SystemExit(0)\nraise Bad(1)",
        "Bad: <exception str() failed>",
    ),
    "syntax_error": ("x = 1\ny = = 2", "SyntaxError: invalid syntax"),
    "syntax_error_of_text": ("eval('1 +')", "SyntaxError: invalid syntax"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "recursion": ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded"),
    "no_utf8": (
        "print('\\ud800')",
        "UnicodeEncodeError: 'utf-8' codec can't encode character '\\ud800' in position 0:"
        " surrogates not allowed",
    ),
    "surrogates_in_message": ("raise ValueError('\\ud800é')", "ValueError: \\ud800é"),
    "no_stderr": ("import sys\nsys.stderr = None\nraise ValueError('bad')", "ValueError: bad"),
    "stderr_closed": ("import os\nos.close(2)\nraise ValueError('bad')", "ValueError: bad"),
    "thread": (
        "import threading\ndef f(): 1 / 0\n"
        "t = threading.Thread(target=f)\nt.start(); t.join()\nprint('done')",
        "done\nException in thread Thread-1 (f):\nTraceback (most recent call last):\n"
        '  File "<tool>", line 2, in f\n    def f(): 1 / 0\n'
        "ZeroDivisionError: division by zero",
    ),
    "printed_traceback": (
        "import traceback\ntry:\n    1 / 0\nexcept Exception:\n    traceback.print_exc()",
        'Traceback (most recent call last):\n  File "<tool>", line 3, in <module>\n    1 / 0\n'
        "ZeroDivisionError: division by zero",
    ),
    "logging": ("import logging\nlogging.error('x is %d', 5)", "ERROR:root:x is 5"),
    "stderr_alone": ("import sys\nsys.stderr.write('answer 5\\n')", "answer 5"),
    "both_streams": ("import sys\nprint('note', file=sys.stderr)\nprint(5)", "5\nnote"),
    "nothing": ("x = 5", "(no output)"),
    "input_at_its_end": ("import os, sys\nprint([sys.stdin.read(), os.read(0, 9)])", "['', b'']"),
    "input_taken_away": (
        "import os\nos.close(0)\nraise ValueError('bad')",
        'Traceback (most recent call last):\n  File "<tool>", line 3, in <module>\n'
        "    raise ValueError('bad')\nValueError: bad\nexit status 1",
    ),
    "exit_status": (
        "import sys\nprint('no solution', file=sys.stderr)\nprint(3)\nsys.exit(1)",
        "3\nno solution\nexit status 1",
    ),
    "exit_status_in_silence": ("raise SystemExit(3)", "exit status 3"),
    "exit_status_of_a_handler": (
        "import atexit, sys\natexit.register(lambda: print('bye', file=sys.stderr))\nsys.exit(3)",
        "bye\nexit status 3",
    ),
    "exit_message": ("import sys\nsys.exit('no solution')", "no solution"),
    "exit_object": ("import sys\nprint(1)\nsys.exit(('x', 2))", "1\n('x', 2)"),
    "exit_at_once": ("import os\nprint(2)\nos._exit(1)", "2\nexit status 1"),
    "argparse": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('n')\np.parse_args()",
        "usage: <tool> [-h] n\n<tool>: error: the following arguments are required: n\n"
        "exit status 2",
    ),
    "unittest": (
        "import unittest\nclass T(unittest.TestCase):\n"
        "    def test(self): self.assertEqual(1, 2)\nunittest.main()",
        f"F\n{'=' * 70}\nFAIL: test (__main__.T.test)\n{'-' * 70}\n"
        'Traceback (most recent call last):\n  File "<tool>", line 3, in test\n'
        "    def test(self): self.assertEqual(1, 2)\n"
        "AssertionError: 1 != 2\n\n"
        f"{'-' * 70}\nRan 1 test in ...s\n\nFAILED (failures=1)\nexit status 1",
    ),
    "abort": ("import os\nprint(3)\nos.abort()", "3\nkilled by SIGABRT"),
    "segmentation_fault": ("import ctypes\nprint(3)\nctypes.string_at(0)", "3\nkilled by SIGSEGV"),
    "kill": ("import os\nprint(3)\nos.kill(os.getpid(), 9)", "3\nkilled by SIGKILL"),
    "abort_behind_exception": (
        "import atexit, os\natexit.register(os.abort)\nraise ValueError('bad')",
        'Traceback (most recent call last):\n  File "<tool>", line 3, in <module>\n'
        "    raise ValueError('bad')\nValueError: bad\nkilled by SIGABRT",
    ),
    "forged": (
        "import json, os, struct\nword = {'end': 'exception', 'text': 'forged'}\n"
        "body = json.dumps(word).encode()\n"
        "os.write(0, struct.pack('>I', len(body)) + body)\nprint(1)",
        "1",
    ),
}

_REFUSED = "PermissionError: [Errno 1] no process can be started or share memory here; use threads"

# `multiprocessing`, where a call is one process.
PROCESSES: dict[str, tuple[str, str]] = {
    "pool": ("import multiprocessing as m\nm.Pool(2)", _REFUSED),
    "queue": ("import multiprocessing as m\nm.Queue()", _REFUSED),
    "process": ("import multiprocessing as m\nm.Process(target=print).start()", _REFUSED),
    "spawn": ("import multiprocessing as m\nm.get_context('spawn').Process().start()", _REFUSED),
    "manager": ("import multiprocessing as m\nm.Manager()", _REFUSED),
    "value": ("import multiprocessing as m\nm.Value('i', 0)", _REFUSED),
    "barrier": ("import multiprocessing as m\nm.Barrier(2)", _REFUSED),
    "shared_memory": (
        "from multiprocessing import shared_memory as s\ns.SharedMemory(create=True, size=9)",
        _REFUSED,
    ),
    "executor": (
        "from concurrent import futures\nfutures.ProcessPoolExecutor(2).submit(abs, 1)",
        _REFUSED,
    ),
    "fork": ("import os\nos.fork()", "PermissionError: [Errno 1] Operation not permitted"),
    "subprocess": (
        "import subprocess\nsubprocess.run(['ls'])",
        "PermissionError: [Errno 1] Operation not permitted",
    ),
    "asyncio": (
        "import asyncio\nasync def f(): await asyncio.create_subprocess_exec('ls')\n"
        "asyncio.run(f())",
        "PermissionError: [Errno 1] Operation not permitted",
    ),
    "threads": (
        "from multiprocessing.pool import ThreadPool\nwith ThreadPool(2) as p:\n"
        "    print(p.map(abs, [-1, 2]))",
        "[1, 2]",
    ),
}

# Stopped by a limit, with what was written until then; `time`, `cpu`, `output` or `memory`.
STOPPED: dict[str, tuple[str, str, str]] = {
    "endless": ("time", "print('partial')\nwhile True: pass", "partial\nTime limit exceeded."),
    "one_call": ("time", "print('partial')\npow(10**8, 10**8)", "partial\nTime limit exceeded."),
    "log": (
        "time",
        "import logging, time\nprint('partial')\nlogging.error('now')\ntime.sleep(60)",
        "partial\nERROR:root:now\nTime limit exceeded.",
    ),
    "unfinished": (
        "time",
        "print('a\\nb', end='', flush=True)\nwhile True: pass",
        "a\nb\nTime limit exceeded.",
    ),
    "thread": (
        "time",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print(1)\n1/0",
        '1\nTraceback (most recent call last):\n  File "<tool>", line 4, in <module>\n    1/0\n'
        "ZeroDivisionError: division by zero\nTime limit exceeded.",
    ),
    "cpu": ("cpu", "print('partial')\nwhile True: pass", "partial\nTime limit exceeded."),
    "memory": (
        "memory",
        "print('partial')\nx = bytearray(1 << 34)",
        "partial\nMemory limit exceeded.",
    ),
    "output": (
        "output",
        "print('partial')\nwhile True: print('line')",
        "partial\nline\n[999980 bytes truncated]\nline\nline\nOutput limit exceeded.",
    ),
}
