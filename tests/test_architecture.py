"""Imports point one way: between the top-level packages, and between the rooms of `gtpo_jax`."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import gtpo_jax

ROOT = Path(__file__).parents[1]

# package → what it may import of the repository; the others may import everything.
PACKAGES = {
    "gtpo_jax": ("gtpo_jax",),
    "models": (
        "models",
        "gtpo_jax.language.files",
        "gtpo_jax.settings",
        "gtpo_jax.devices.sharding",
        "gtpo_jax.types",
    ),
    "configs": ("configs", "gtpo_jax", "models"),
}
OURS = {*PACKAGES, "launch", "benchmarks", "tests"}

# Programs of their own in a bare interpreter: they import the standard library and each other.
PROGRAMS = "gtpo_jax/tools/sandbox"

# A room imports only rooms that stand before it.
ROOMS = [
    "types",
    "settings",
    "maths",
    "devices",
    "parts",
    "methods",
    "learner",
    "training",
    "lab",
    "decoding",
    "tools",
    "language",
    "verifiers",
    "tasks",
    "rollout",
    "results",
    "report",
    "testing",
]


def imported(path: Path) -> set[str]:
    """Dotted names of all that the module at `path` imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (f"{node.module}." if node.module else "")
            names |= {module + alias.name for alias in node.names}
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def wrong_arrows(root: Path) -> list[str]:
    """One line for each import under `root` that the two tables above do not allow."""
    wrong = []
    for path in sorted((root / PROGRAMS).glob("*.py")):
        where = path.relative_to(root).with_suffix("").as_posix()
        for name in sorted(imported(path)):
            top = name.split(".")[0]
            beside = name.startswith(".") and not name.startswith("..")
            if not beside and top not in sys.stdlib_module_names:
                wrong.append(f"{where} imports {name}")
    for package, allowed in PACKAGES.items():
        for path in sorted((root / package).rglob("*.py")):
            if path.is_relative_to(root / PROGRAMS):
                continue
            where = path.relative_to(root).with_suffix("").parts
            here = where[1]
            if package == "gtpo_jax" and here not in (*ROOMS, "__init__"):
                wrong.append(f"{'/'.join(where)} is no room of the list")
                continue
            for name in sorted(imported(path)):
                ours = name.startswith(".") or name.split(".")[0] in OURS
                room = name.split(".")[1] if package == "gtpo_jax" and "." in name else None
                upward = here in ROOMS and room in ROOMS and ROOMS.index(room) > ROOMS.index(here)
                if ours and (upward or not any(within(name, a) for a in allowed)):
                    wrong.append(f"{'/'.join(where)} imports {name}")
    return wrong


def test_no_import_points_the_wrong_way():
    assert wrong_arrows(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("gtpo_jax/learner/update.py", "import models.decoder"),
        ("gtpo_jax/learner/update.py", "from configs import schema"),
        ("gtpo_jax/maths/masking.py", "from gtpo_jax import rollout"),
        ("gtpo_jax/maths/masking.py", "from gtpo_jax.rollout import collect"),
        ("gtpo_jax/maths/masking.py", "import gtpo_jax.rollout"),
        ("gtpo_jax/maths/masking.py", "from . import rollout"),
        ("gtpo_jax/tools/pool.py", "from gtpo_jax.language.grammar import parse"),
        ("gtpo_jax/maths/masking.py", "def late():\n    from gtpo_jax import rollout"),
        ("gtpo_jax/tools/sandbox/zygote.py", "from .. import executor"),
        ("gtpo_jax/tools/sandbox/zygote.py", "from gtpo_jax.tools import executor"),
        ("gtpo_jax/tools/sandbox/zygote.py", "import numpy"),
        ("gtpo_jax/unheard_of.py", "import math"),
        ("models/decoder.py", "from gtpo_jax import learner"),
        ("models/decoder.py", "import gtpo_jax"),
        ("models/decoder.py", "from configs.schema import Run"),
        ("configs/schema.py", "import launch.train"),
    ],
)
def test_a_wrong_arrow_is_caught(tmp_path, file, line):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line + "\n")
    assert len(wrong_arrows(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("gtpo_jax/rollout.py", "from gtpo_jax.tools import pool"),
        ("gtpo_jax/methods/gtpo.py", "from gtpo_jax.methods import method"),
        ("gtpo_jax/learner/checkpoint.py", "from gtpo_jax import __version__"),
        ("gtpo_jax/tools/executor.py", "from gtpo_jax.tools.sandbox import wire"),
        ("gtpo_jax/tools/sandbox/zygote.py", "import os\nfrom . import wire"),
        ("gtpo_jax/tools/sandbox/zygote.py", "from .wire import Channel"),
        ("models/decoder.py", "from gtpo_jax.types import ForwardFn"),
        ("models/decoder.py", "from gtpo_jax.devices import sharding"),
        ("configs/schema.py", "from models import presets"),
        ("launch/train.py", "import configs, models, gtpo_jax"),
    ],
)
def test_a_right_arrow_passes(tmp_path, file, line):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line + "\n")
    assert wrong_arrows(tmp_path) == []


def in_the_encoding_of_the_locale(tree: ast.AST):
    """Lines that read or write text and do not say in which encoding."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        called = ast.unparse(call.func)
        name = called.rpartition(".")[2]
        words = [ast.unparse(word) for word in call.args[0 if "." in called else 1 :]]
        mode = given.get("mode", words[0] if words else "'r'")
        opens = name == "open" and "b" not in mode
        piped = given.get("text") == "True"
        asks = called not in ("os.open", "Image.open", "files.read_text")  # these take no encoding
        texts = opens or piped or name in ("read_text", "write_text")
        if "encoding" not in given and asks and texts:
            yield call.lineno


@pytest.mark.parametrize("folder", ["gtpo_jax", "models", "configs", "launch", "benchmarks"])
def test_text_is_read_and_written_in_an_encoding_that_is_named(folder):
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / folder).rglob("*.py")
        for line in in_the_encoding_of_the_locale(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found


@pytest.mark.slow
def test_the_wheel_holds_the_library_alone(tmp_path):
    source = tmp_path / "source"
    skip = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=skip)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(source)], check=True)
    [wheel] = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ignored = {"__pycache__", "ruff.toml"}
    written = {
        path.relative_to(source).as_posix()
        for path in (source / "gtpo_jax").rglob("*")
        if path.is_file() and path.name not in ignored
    }
    assert wheel.name.startswith(f"gtpo_jax-{gtpo_jax.__version__}-")
    assert shipped == written
