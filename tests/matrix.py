"""`make test` on other machines than this one, as far as this one can play them.

    python tests/matrix.py --list
    python tests/matrix.py --covering                  # few runs in which every setting occurs
    python tests/matrix.py avx2 sse4_2+workers_1+zone  # runs of your own: settings joined by +
    python tests/matrix.py                             # every setting in a run of its own

Each interpreter tests a clone of the last commit in `--folder`, where clones and logs stay. A run
takes as long as `make test`, and the first one of an interpreter installs its environment.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = pathlib.Path(__file__).parents[1]
COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")


@dataclasses.dataclass(frozen=True)
class Setting:
    """The conditions of a run."""

    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    workers: int | None = None
    python: str | None = None
    shell: str = ""
    """Run by the shell that becomes `make`."""
    load: int = 0
    """Processes beside it that never rest."""
    path: Callable[[pathlib.Path], Mapping[str, str]] | None = None
    """More of the environment, made in a folder."""


def isa(name: str) -> Setting:
    return Setting({"XLA_FLAGS": f"--xla_cpu_max_isa={name}"})


def home_that_cannot_be_written(folder: pathlib.Path) -> dict[str, str]:
    home = folder / "home"
    home.mkdir(mode=0o555, exist_ok=True)
    return {"HOME": "/proc" if os.access(home, os.W_OK) else str(home)}  # root may write anywhere


def deep_folder(folder: pathlib.Path) -> dict[str, str]:
    deep = folder.joinpath("temporary files", *["a folder of a long name"] * 4)
    deep.mkdir(parents=True, exist_ok=True)
    return {"TMPDIR": str(deep)}


def programs_without_git(folder: pathlib.Path) -> dict[str, str]:
    place = folder / "programs"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for part in os.environ["PATH"].split(os.pathsep):
        for program in pathlib.Path(part).glob("*"):
            if program.name != "git" and not (place / program.name).exists():
                (place / program.name).symlink_to(program)
    return {"PATH": str(place)}


SETTINGS: dict[str, Setting] = {
    "sse4_2": isa("SSE4_2"),
    "avx2": isa("AVX2"),
    "avx512": isa("AVX512"),
    "workers_1": Setting(workers=1),
    "workers_2": Setting(workers=2),
    "workers_4": Setting(workers=4),
    "background": Setting(shell="trap '' INT"),
    "load": Setting(load=2),
    "locale": Setting({"LANG": "C", "LC_ALL": "C"}),
    "zone": Setting({"TZ": "Asia/Kathmandu"}),
    "home": Setting(path=home_that_cannot_be_written),
    "tmpdir": Setting(path=deep_folder),
    "umask": Setting(shell="umask 077"),
    "no_git": Setting(path=programs_without_git),
    "python_3_11": Setting(python="python3.11"),
    "python_3_12": Setting(python="python3.12"),
}
COVERING = [
    "python_3_11+sse4_2+workers_1+background+locale+umask",
    "python_3_11+avx2+workers_2+load+zone",
    "python_3_12+avx512+workers_4+home+tmpdir+no_git",
]


@dataclasses.dataclass
class Result:
    """The end of a run: counts of tests, and the tests that failed."""

    status: int
    seconds: float
    counts: dict[str, int]
    failures: list[str]

    def __str__(self) -> str:
        told = ", ".join(f"{self.counts.get(k, 0):,} {k}" for k in ("passed", "failed", "skipped"))
        return f"{'passed' if not self.status else 'FAILED'}  {told}  {self.seconds:,.0f} s"


def settings_of(row: str) -> list[Setting]:
    """The settings of a row, as in `avx2+workers_1`."""
    unknown = [name for name in row.split("+") if name not in SETTINGS]
    if unknown:
        raise SystemExit(f"error: no setting {unknown[0]!r}; there are {', '.join(SETTINGS)}")
    return [SETTINGS[name] for name in row.split("+")]


def read_result(status: int, seconds: float, log: str) -> Result:
    """The counts of pytest's last line, and the tests that failed."""
    last = next((line for line in reversed(log.splitlines()) if COUNT.search(line)), "")
    counts = {
        name.rstrip("s") if "error" in name else name: int(n) for n, name in COUNT.findall(last)
    }
    failures = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", log, re.M)
    return Result(status, seconds, counts, failures)


def clone(folder: pathlib.Path, python: str) -> pathlib.Path:
    """A clone of the last commit for an interpreter; one that is there is brought up to date."""
    place = folder / pathlib.Path(python).name
    git = ["git", "-c", f"safe.directory={ROOT}"]
    if not place.exists():
        subprocess.run([*git, "clone", "--quiet", ROOT, place], check=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, encoding="ascii"
    ).stdout.strip()
    subprocess.run([*git, "fetch", "--quiet", ROOT, head], cwd=place, check=True)
    subprocess.run([*git, "checkout", "--quiet", "--detach", head], cwd=place, check=True)
    return place


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """Starts that many busy processes for the duration of the block."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(row: str, folder: pathlib.Path, pythons: Mapping[str, str], more: str) -> Result:
    """Runs `make test` under the settings of a row."""
    settings = settings_of(row)
    name = next((s.python for s in settings if s.python), "python")
    place, environment = clone(folder, name), dict(os.environ)
    for setting in settings:
        environment |= {**setting.environment, **(setting.path(folder) if setting.path else {})}
    command = ["make", "test", f"PYTHON={pythons[name]}", f"ARGS=-q {more}"]
    command += [f"WORKERS={s.workers}" for s in settings if s.workers]
    script = "\n".join([*(s.shell for s in settings if s.shell), 'exec "$@"'])
    log = folder / f"{row}.log"
    begin = time.monotonic()
    with log.open("wb") as file, load(sum(s.load for s in settings)):
        status = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *command],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        ).returncode
    text = log.read_text(encoding="utf-8", errors="replace")
    return read_result(status, time.monotonic() - begin, text)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help="settings joined by +; every one alone by default")
    parser.add_argument("--covering", action="store_true", help="the rows that cover every setting")
    parser.add_argument("--list", action="store_true", help="settings and rows; nothing is run")
    parser.add_argument("--folder", type=pathlib.Path, help="where clones and logs go")
    parser.add_argument("--python311", default=shutil.which("python3.11"), metavar="PATH")
    parser.add_argument("--python312", default=shutil.which("python3.12"), metavar="PATH")
    parser.add_argument("--args", default="", help="more for pytest, as '-k decoder'")
    arguments = parser.parse_args(argv)
    rows = [*arguments.rows, *(COVERING if arguments.covering else [])] or list(SETTINGS)
    if arguments.list:
        print("settings:", *SETTINGS, sep="\n  ")
        print("covering:", *COVERING, sep="\n  ")
        return 0
    pythons = {"python3.11": arguments.python311, "python3.12": arguments.python312}
    pythons["python"] = sys.executable
    for row in rows:
        for setting in settings_of(row):
            if setting.python and not pythons[setting.python]:
                raise SystemExit(f"error: no {setting.python} on PATH; give its path")
    folder = arguments.folder or pathlib.Path(tempfile.mkdtemp(prefix="matrix-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"clones and logs: {folder.resolve()}", flush=True)
    failed = 0
    for row in rows:
        result = run(row, folder.resolve(), pythons, arguments.args)
        failed += bool(result.status)
        print(f"{row:<56} {result}", *result.failures, sep="\n    ", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
