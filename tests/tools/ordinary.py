"""Ordinary code of many kinds and what it prints: isolation must not stand in its way."""

from __future__ import annotations

# name → (code, stdout). What is in `BENIGN` works on every host.
BENIGN: dict[str, tuple[str, str]] = {
    "asyncio": (
        """
import asyncio
async def square(x):
    await asyncio.sleep(0.001)
    return x * x
async def main():
    queue = asyncio.Queue()
    await queue.put(await asyncio.to_thread(sum, [1, 2]))
    return await asyncio.gather(*map(square, range(4))), await asyncio.wait_for(queue.get(), 2)
print(asyncio.run(main()))
""",
        "([0, 1, 4, 9], 3)\n",
    ),
    "threads": (
        """
import concurrent.futures, queue, threading
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(lambda x: x * x, range(100))))
tasks = queue.Queue()
worker = threading.Thread(target=lambda: [tasks.put(i) for i in range(3)])
worker.start(); worker.join()
print(tasks.get(), tasks.get(), tasks.qsize())
local, event = threading.local(), threading.Event()
threading.Timer(0.01, event.set).start()
print(event.wait(2), threading.active_count() <= 2)
""",
        "328350\n0 1 1\nTrue True\n",
    ),
    "alarm": (
        """
import signal, time
def late(number, frame):
    raise TimeoutError("late")
signal.signal(signal.SIGALRM, late)
signal.setitimer(signal.ITIMER_REAL, 0.02)
try:
    time.sleep(2)
except TimeoutError as error:
    print(error)
signal.signal(signal.SIGTERM, lambda *a: print("term"))
signal.raise_signal(signal.SIGTERM)
import os
os.kill(os.getpid(), signal.SIGTERM)
""",
        "late\nterm\nterm\n",
    ),
    "numbers": (
        """
import decimal, fractions, math, statistics, sys
decimal.getcontext().prec = 60
print(decimal.Decimal(2).sqrt())
print(fractions.Fraction(22, 7) - fractions.Fraction(1, 3), math.comb(50, 25), math.isqrt(10**40))
print(len(str(2**50000)), statistics.pstdev([1, 2, 3, 4]), hex(1 << 70), 0.1 + 0.2)
""",
        "1.41421356237309504880168872420969807856967187537694807317668\n"
        "59/21 126410606437752 100000000000000000000\n"
        "15052 1.118033988749895 0x400000000000000000 0.30000000000000004\n",
    ),
    "random": (
        """
import random, uuid, secrets, os
random.seed(7)
print(random.random(), random.sample(range(10), 3), random.choice("abc"))
print(len(uuid.uuid4().hex), len(secrets.token_bytes(8)), len(os.urandom(4)))
""",
        "0.32383276483316237 [2, 6, 0] a\n32 8 4\n",
    ),
    "text": (
        """
import contextlib, difflib, html, io, json, re, string, textwrap, unicodedata
print(re.sub(r"(\\w+) (\\w+)", r"\\2 \\1", "hello world"), json.dumps({"a": [1, None]}))
with contextlib.redirect_stdout(io.StringIO()) as caught:
    print("hidden")
print(repr(caught.getvalue()), textwrap.shorten("a b c d", 6), unicodedata.name("é"))
print("héllo ∑ 😀".upper(), html.escape("<"), string.Template("$x").substitute(x=1))
print(json.loads("[" * 500 + "]" * 500) != [], "a\\tb", end="!\\n", flush=True)
""",
        "world hello {\"a\": [1, null]}\n'hidden\\n' [...] LATIN SMALL LETTER E WITH ACUTE\n"
        "HÉLLO ∑ 😀 &lt; 1\nTrue a\tb!\n",
    ),
    "classes": (
        """
import abc, collections, dataclasses, enum, functools, inspect, itertools, operator, typing
@dataclasses.dataclass(order=True)
class Point:
    x: int
    y: int = 0
class Color(enum.Enum):
    RED = 1
@functools.lru_cache(None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
print(sorted([Point(2), Point(1, 5)]), Color.RED, fib(80))
print(inspect.getsource(fib).splitlines()[1], list(itertools.accumulate([1, 2, 3], operator.mul)))
print(collections.Counter("abca").most_common(1), typing.get_type_hints(Point))
""",
        "[Point(x=1, y=5), Point(x=2, y=0)] Color.RED 23416728348467685\n"
        "def fib(n): [1, 2, 6]\n[('a', 2)] {'x': <class 'int'>, 'y': <class 'int'>}\n",
    ),
    "time": (
        """
import calendar, datetime, time, timeit
print(datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc).isoformat(), time.tzname[0])
print(datetime.datetime.now().year > 2020, calendar.isleap(2024), timeit.timeit("1", number=1) >= 0)
print(time.strftime("%Y", time.localtime(0)), time.monotonic() > 0, time.thread_time() >= 0)
""",
        "2024-02-29T00:00:00+00:00 UTC\nTrue True True\n1970 True True\n",
    ),
    "streams": (
        """
import logging, pprint, sys, warnings
logging.basicConfig(level=logging.INFO)
logging.info("a note"); warnings.warn("careful")
sys.stdout.buffer.write(b"raw "); sys.stdout.buffer.flush()
sys.stdout.write("text\\n"); print("err", file=sys.stderr)
print(sys.stdin.read() == "", sys.stdin.isatty(), sys.stdout.encoding, sys.argv, sys.flags.isolated)
try:
    input("? ")
except EOFError as error:
    print(type(error).__name__)
pprint.pprint({"b": 1, "a": 2})
""",
        "raw text\nTrue False utf-8 ['<tool>'] 0\n? EOFError\n{'a': 2, 'b': 1}\n",
    ),
    "machine": (
        """
import getpass, locale, os, platform, resource, socket, sys, tempfile
print(os.cpu_count() >= 1, platform.system(), sys.platform, locale.getlocale()[1])
print(os.getcwd() != "", os.environ.get("HOME") is not None, os.path.exists("no"), os.getpid() > 0)
print(len(platform.platform()) > 5, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0)
print(os.get_terminal_size.__name__, __import__("shutil").get_terminal_size().columns)
""",
        "True Linux linux UTF-8\nTrue True False True\nTrue True\nget_terminal_size 80\n",
    ),
    "unittest": (
        """
import doctest, sys, unittest
def double(x):
    '''
    >>> double(2)
    4
    '''
    return 2 * x
print(doctest.testmod())
class Case(unittest.TestCase):
    def test_double(self):
        self.assertEqual(double(2), 4)
result = unittest.main(exit=False, argv=["x"], verbosity=0).result
print(result.wasSuccessful(), result.testsRun)
""",
        "TestResults(failed=0, attempted=1)\nTrue 1\n",
    ),
    "memory": (
        """
import array, ctypes, gc, mmap, struct, weakref, zlib
view = memoryview(bytearray(b"abcdef"))[1:4]
view[0] = 120
print(bytes(view), struct.unpack("<I", array.array("B", [1, 0, 0, 0]).tobytes()))
area = mmap.mmap(-1, 8192); area[:3] = b"abc"
print(area[:3], zlib.decompress(zlib.compress(b"x" * 10**6))[:2], gc.collect() >= 0)
print(ctypes.string_at(ctypes.create_string_buffer(b"hi")), sum(range(10**6)))
""",
        "b'xcd' (1,)\nb'abc' b'xx' True\nb'hi' 499999500000\n",
    ),
    "exceptions": (
        """
import traceback
try:
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise ValueError("outer") from error
except ValueError:
    print(traceback.format_exc().count("Traceback"))
try:
    raise ExceptionGroup("many", [ValueError(1), TypeError(2)])
except* ValueError as group:
    print(group.exceptions)
except* TypeError:
    pass
""",
        "2\n(ValueError(1),)\n",
    ),
    "sqlite_in_memory": (
        """
import sqlite3
base = sqlite3.connect(":memory:")
base.execute("create table t (x)")
base.executemany("insert into t values (?)", [(i,) for i in range(10)])
print(base.execute("select sum(x), max(x) from t").fetchone())
""",
        "(45, 9)\n",
    ),
    "numpy": (
        """
import numpy as np
rng = np.random.default_rng(0)
a = rng.normal(size=(200, 200))
print(np.allclose(a @ np.linalg.inv(a), np.eye(200), atol=1e-6), np.linalg.svd(a)[1].shape)
print(np.fft.ifft(np.fft.fft([1, 2, 3])).real.round(6), np.random.randint(100, size=2))
print(np.polyfit([0, 1, 2], [1, 3, 5], 1).round(6), np.linalg.det([[1, 2], [3, 4]]).round(6))
""",
        "True (200,)\n[1. 2. 3.] [44 47]\n[2. 1.] -2.0\n",
    ),
}

# Where a call has a scratch directory.
WITH_FILES: dict[str, tuple[str, str]] = {
    "files": (
        """
import csv, glob, json, os, pathlib, pickle, shutil, tempfile
with open("a.csv", "w", newline="") as file:
    csv.writer(file).writerows([[1, "x"], [2, "y"]])
print(list(csv.reader(open("a.csv"))))
pathlib.Path("d/e").mkdir(parents=True)
pathlib.Path("d/e/f.txt").write_text("é")
shutil.copytree("d", "g"); shutil.copy2("a.csv", "g"); shutil.move("g/a.csv", "b.csv")
print(sorted(glob.glob("**", recursive=True)), [n for _, _, n in os.walk("g")])
shutil.rmtree("d"); os.remove("a.csv")
pickle.dump({"a": 1}, open("p", "wb")); print(pickle.load(open("p", "rb")))
with tempfile.TemporaryDirectory() as folder:
    print(os.path.isdir(folder))
with tempfile.NamedTemporaryFile("w+") as file:
    file.write("x"); file.flush(); print(os.path.getsize(file.name))
with tempfile.SpooledTemporaryFile(10) as file:
    print(file.write(b"a" * 20))
print(sorted(p.name for p in pathlib.Path.cwd().iterdir()), os.path.exists(os.path.expanduser("~")))
os.chmod("p", 0o600); os.utime("p", (1, 1)); print(os.stat("p").st_mtime)
os.rename("p", "q"); os.symlink("q", "r"); os.link("q", "s"); print(os.readlink("r"))
""",
        "[['1', 'x'], ['2', 'y']]\n"
        "['a.csv', 'b.csv', 'd', 'd/e', 'd/e/f.txt', 'g', 'g/e', 'g/e/f.txt'] [[], ['f.txt']]\n"
        "{'a': 1}\nTrue\n1\n20\n['b.csv', 'g', 'p'] True\n1.0\nq\n",
    ),
    "databases": (
        """
import dbm.dumb, mmap, shelve, sqlite3, zipfile, tarfile
with sqlite3.connect("base.db") as base:
    base.execute("create table t (x)")
    base.execute("insert into t values (3)")
print(base.execute("select * from t").fetchall())
with open("m", "w+b") as file:
    file.write(bytes(4096)); file.flush()
    with mmap.mmap(file.fileno(), 4096) as area:
        area[:2] = b"ok"
print(open("m", "rb").read(2))
with zipfile.ZipFile("z.zip", "w") as archive:
    archive.writestr("n", "inside")
with tarfile.open("t.tar.gz", "w:gz") as archive:
    archive.add("z.zip")
print(zipfile.ZipFile("z.zip").read("n"), tarfile.open("t.tar.gz").getnames())
""",
        "[(3,)]\nb'ok'\nb'inside' ['z.zip']\n",
    ),
    "modules": (
        """
import os, sys
open("mine.py", "w").write("value = 41\\ndef f(): return value + 1\\n")
sys.path.insert(0, os.getcwd())
import mine
print(mine.f(), mine.__file__.endswith("mine.py"))
""",
        "42 True\n",
    ),
    "numpy_files": (
        """
import numpy as np
np.save("a.npy", np.arange(3)); np.savetxt("a.txt", np.eye(2)); np.savez("a.npz", x=np.ones(2))
print(np.load("a.npy"), np.loadtxt("a.txt").sum(), np.load("a.npz")["x"], np.memmap("a.npy")[:6])
""",
        "[0 1 2] 2.0 [1. 1.] [147  78  85  77  80  89]\n",
    ),
    "own_output": (
        """
import os, sys
saved = os.dup(1)
with open("log", "w") as file:
    os.dup2(file.fileno(), 1)
    print("to the file", flush=True)
os.dup2(saved, 1)
print(open("log").read(), end="")
""",
        "to the file\n",
    ),
}

# Where libraries can be read: these need data, or sources.
READS_LIBRARIES: dict[str, tuple[str, str]] = {
    "zones": (
        """
import datetime, zoneinfo
print(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")).utcoffset())
""",
        "2:00:00\n",
    ),
    "late_imports": (
        """
import curses.ascii, wave
import numpy.testing, numpy.polynomial.chebyshev as chebyshev, inspect, json
print(chebyshev.chebval(0.5, [1, 2]), inspect.getsource(json.dumps).startswith("def dumps"))
""",
        "2.0 True\n",
    ),
}

SYMPY: dict[str, tuple[str, str]] = {
    "sympy": (
        """
from sympy import *
x, n = symbols("x n")
print(solve(x**3 - 6*x**2 + 11*x - 6, x), integrate(exp(-x**2), (x, -oo, oo)))
print(diff(sin(x) * exp(x), x), limit(sin(x) / x, x, 0), series(cos(x), x, 0, 4))
print(summation(1 / n**2, (n, 1, oo)), factorint(2**31 - 2), isprime(2**61 - 1))
print(Matrix([[2, 1], [1, 3]]).eigenvals(), simplify((x**2 - 1) / (x - 1)), latex(x**2 / 2))
print(dsolve(Function("f")(x).diff(x) - Function("f")(x)), N(pi, 30), nsimplify(0.125))
""",
        "[1, 2, 3] sqrt(pi)\nexp(x)*sin(x) + exp(x)*cos(x) 1 1 - x**2/2 + O(x**4)\n"
        "pi**2/6 {2: 1, 3: 2, 7: 1, 11: 1, 31: 1, 151: 1, 331: 1} True\n"
        "{5/2 - sqrt(5)/2: 1, sqrt(5)/2 + 5/2: 1} x + 1 \\frac{x^{2}}{2}\n"
        "Eq(f(x), C1*exp(x)) 3.14159265358979323846264338328 1/8\n",
    ),
}
