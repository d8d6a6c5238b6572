"""Commands on the pages are valid: every option, target, extra and program exists."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import tyro

from tests.commands import PAGES, ROOT, Command, in_blocks, in_sentences, own_module

pytestmark = pytest.mark.slow

PRINTED = [command for page in PAGES for command in in_blocks(page)]
NAMED = [command for page in PAGES for command in in_sentences(page)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


class Parsed(BaseException):
    """The options were taken; what would follow is the work."""


def check_options(program: str, options: list[str], monkeypatch) -> None:
    """Runs a program until its options are parsed."""
    parse = tyro.cli

    def cli(*arguments, **settings):
        raise Parsed(parse(*arguments, **settings))

    monkeypatch.setattr(tyro, "cli", cli)
    ends = SystemExit if "--help" in options else Parsed
    with pytest.raises(ends) as stop:
        importlib.import_module(program).run(options)
    assert ends is Parsed or not stop.value.code


def check_target(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.M)


def check_extras(requirement: str) -> None:
    """Each extra in `.[hf,tasks]` exists; packages are not checked."""
    if requirement.startswith("."):
        assert set(requirement[2:-1].split(",")) <= EXTRAS.keys()


def check_image(words: list[str]) -> None:
    options = dict(itertools.pairwise(words))
    text = (ROOT / options["-f"]).read_text(encoding="utf-8")
    assert re.search(rf"^ARG {options['--build-arg'].partition('=')[0]}\b", text, re.M)


def check_dry_run(words: list[str]) -> None:
    assert "--dry-run" in words
    if words[0].endswith("tpu_pod.sh") and not shutil.which("git"):
        pytest.skip("needs git")
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()


def check(command: Command, monkeypatch) -> None:
    match command.words():
        case ["python", "-m", "gtpo_jax.tools.doctor"]:
            importlib.import_module("gtpo_jax.tools.doctor")
        case ["python", "-m", "launch.methods" as program]:
            importlib.import_module(program).run([])
        case ["python", "-m", "launch.lab" as program, *options]:
            importlib.import_module(program).make_parser().parse_args(options)
        case ["python", "-m", program, *options]:
            check_options(program, options, monkeypatch)
        case ["make", target]:
            check_target(target)
        case ["pip", "install", *_, requirement]:
            check_extras(requirement)
        case ["docker", "build", *words]:
            check_image(words)
        case [script, *_] as words if script.startswith("launch/hosts/"):
            check_dry_run(words)
        case ["source", ".venv/bin/activate"]:
            pass  # what `make` makes, and the other commands run in
        case words:
            raise AssertionError(f"a new kind of command: {words}; say here how it is checked")


@pytest.mark.parametrize("command", PRINTED, ids=lambda c: f"{c.page}-{c.text[:60]}")
def test_printed_command_is_understood(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if "my_module:" in command.text:
        text = own_module(ROOT / "docs" / command.page)
        (tmp_path / "my_module.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "my_module", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    check(command, monkeypatch)


@pytest.mark.parametrize("option", ["--train.stepz", "--cheese"])
def test_option_that_is_not_there_is_found(option, monkeypatch):
    command = Command("page", f"python -m launch.train tiny {option} 3")
    with pytest.raises(ValueError, match=option):
        check(command, monkeypatch)


@pytest.mark.parametrize("command", NAMED, ids=lambda c: f"{c.page}-{c.text[:60]}")
def test_command_named_in_a_sentence_is_there(command):
    match command.words():
        case ["python", "-m", program, *_]:
            assert importlib.util.find_spec(program)
        case ["make", *targets]:
            for target in targets:
                check_target(target)
        case ["pip", "install", "-e", requirement]:
            check_extras(requirement)


def test_readme_says_what_every_extra_is_for():
    [table] = re.findall(
        r"^\| for \| extra \|\n(.*?)\n\n", PAGES[0].read_text("utf-8"), re.M | re.S
    )
    told = {name for row in table.splitlines()[1:] for name in re.findall("`([^`]+)`", row)}
    assert EXTRAS.keys() <= told
