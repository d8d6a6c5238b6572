"""The interpreter that children fork from: the files it needs, and the modules it preloads."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Collection

from . import program

# Loaded in the zygote, so that no call pays for them; `antigravity` and the like are left out.
_COMMON = """
    abc array ast base64 bisect calendar cmath codecs collections.abc contextlib copy
    dataclasses datetime decimal enum fractions functools hashlib heapq inspect io itertools
    json keyword math numbers operator os.path pprint queue random re shutil statistics string
    struct tempfile textwrap threading time tokenize traceback types typing unicodedata uuid
    warnings
"""

# Left out even where all else is loaded: these open windows, print, run tests or are programs.
_NOT_LOADED = """
    __main__ antigravity benchmarks conftest distutils ensurepip f2py idlelib lib2to3 pygletplot
    setup test tests this tkinter turtle turtledemo venv
"""

_SYSTEM = ("/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64")
_DATA = ("/usr/share/zoneinfo", "/etc/ld.so.cache")

_HUGE_PAGE = 1 << 21
_MADV_COLLAPSE = 25


def resolve_path() -> None:
    """Resolves links in `sys.path`: children see only real folders."""
    sys.path[:] = [os.path.realpath(path) for path in sys.path if os.path.exists(path)]


def libraries(packages: list[str]) -> list[str]:
    """Paths that children may read: shared libraries, the standard library, packages.

    No path lies below another. No path leads through a link, but it may be a link itself.
    """
    mapped = []
    with contextlib.suppress(OSError), open("/proc/self/maps", "rb") as file:
        mapped = [os.fsdecode(line.split(None, 5)[5].strip()) for line in file if b".so" in line]
    wanted = [os.path.dirname(path) for path in mapped if path.startswith("/")]
    wanted += [os.path.dirname(os.__file__), *sys.path, *packages, *_DATA]
    paths = {os.path.realpath(path) for path in wanted if os.path.exists(path)} - {"/"}
    for path in _SYSTEM:
        if os.path.islink(path):
            paths.add(os.path.realpath(path))
        elif os.path.isdir(path):
            paths.add(path)
    outer = [p for p in paths if not any(p != q and p.startswith(f"{q}/") for q in paths)]
    return sorted([*outer, *(path for path in _SYSTEM if os.path.islink(path))])


def preload(packages: list[str], *, everything: bool) -> None:
    """Imports the packages and the usual modules, and exercises what they load on first use.

    `everything` also imports the rest of the standard library and all modules of the packages, for
    children that cannot open a file and so cannot import later.
    """
    program.warm_up()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _COMMON.split():
            importlib.import_module(name)
        for name in packages:
            importlib.import_module(name)
        for name in packages:
            if name in _WARM_UPS:
                exec(_WARM_UPS[name], {})
        if everything:
            nothing_else = _NothingElse()
            sys.meta_path.insert(0, nothing_else)
            left_out = frozenset(_NOT_LOADED.split())
            # C halves, such as `_asyncio`, break if imported before their Python modules.
            library = sorted(sys.stdlib_module_names, key=lambda name: (name[0] == "_", name))
            for name in (*library, *packages):
                _import_all(name, left_out)
            sys.meta_path.remove(nothing_else)
    _seed()
    gc.collect()
    gc.freeze()  # otherwise a collection in a child would copy every page of the interpreter


class _NothingElse:
    """An import hook that hides further packages, as if they were not installed.

    Parts of sympy import matplotlib if it is there, which makes folders and exit handlers.
    """

    def __init__(self) -> None:
        present = {name.partition(".")[0] for name in sys.modules}
        self._known = present | sys.stdlib_module_names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] not in self._known:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _import_all(name: str, left_out: Collection[str]) -> None:
    """Imports a module and its submodules, as far as they can be imported."""
    if name.rpartition(".")[2] in left_out:
        return
    try:
        module = importlib.import_module(name)
    except BaseException:  # it may be for another system or lack something; some even exit
        return
    for info in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}."):
        _import_all(info.name, left_out)


def merge_pages(proc: int) -> None:
    """Puts the heap on huge pages (Linux 6.1), so that a fork copies fewer page-table entries."""
    libc = ctypes.CDLL(None)
    for line in _read(proc, "self/maps").splitlines():
        span, access, _, _, _, *path = line.split(None, 5)
        begin, end = (int(address, 16) for address in span.split(b"-"))
        begin = -(-begin // _HUGE_PAGE) * _HUGE_PAGE
        size = (end - begin) // _HUGE_PAGE * _HUGE_PAGE
        if access.startswith(b"rw") and path in ([], [b"[heap]"]) and size > 0:
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), _MADV_COLLAPSE)


def _read(proc: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY, dir_fd=proc)
    with open(fd, "rb") as file:
        return file.read()


def address_space(proc: int | None) -> int:
    """Bytes that this process has mapped. `proc` is a descriptor of the machine's `/proc`."""
    if proc is None:
        return 0
    return int(_read(proc, "self/statm").split()[0]) * os.sysconf("SC_PAGE_SIZE")


_WARM_UPS = {
    "numpy": """
import numpy
a = numpy.eye(2)
numpy.linalg.solve(a, numpy.linalg.eigvalsh(a))
numpy.fft.fft(a)
numpy.random.default_rng(0).normal(size=2)
repr(a)
""",
    "sympy": """
import sympy
x, y = sympy.symbols("x y")
sympy.solve([x + y - 3, x - y - 1], [x, y])
sympy.solve(x**2 - 2, x)
sympy.simplify(sympy.sin(x) ** 2 + sympy.cos(x) ** 2)
sympy.integrate(sympy.exp(-x), (x, 0, sympy.oo))
sympy.factorint(360)
sympy.Matrix([[1, 2], [3, 4]]).inv()
sympy.nsimplify(0.5)
str(sympy.Rational(1, 3) + sympy.sqrt(2))
sympy.N(sympy.pi, 20)
sympy.sympify("x**2 + 1")
""",
}


def _seed() -> None:
    """Seeds global generators, so that they start alike in every call."""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(program.RANDOM_SEED)
