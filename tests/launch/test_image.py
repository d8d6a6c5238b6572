"""The container image: its files, its versions, and its user."""

from __future__ import annotations

import fnmatch
import json
import pathlib
import re
import sys
import tomllib

import pytest

from tests.launch.hosts import HOSTS, ROOT, manifest, pod_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the fakes are those of a Linux host"),
]

DOCKERFILE = (HOSTS / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def test_everything_the_image_copies_is_there_and_not_ignored():
    rules = [
        line
        for line in (HOSTS / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    copied = [
        w for line in re.findall(r"^COPY (.*)", DOCKERFILE, flags=re.M) for w in line.split()[:-1]
    ]
    assert {"constraints/", "gtpo_jax/", "models/", "configs/", "launch/"} <= set(copied)
    for source in copied:
        path = ROOT / source
        assert path.exists(), source
        files = [path] if path.is_file() else sorted(path.glob("*.txt")) + sorted(path.glob("*.py"))
        names = [str(file.relative_to(ROOT)) for file in files]
        assert [name for name in names if not ignored(name, rules)] == names != []
    assert ignored("runs/mine/metrics.jsonl", rules) and ignored(".git/config", rules)
    assert ignored("gtpo_jax/__pycache__", rules)


def ignored(name: str, rules: list[str]) -> bool:
    """The result of Docker's ignore rules: the last rule that matches a path, or a parent folder,
    decides.
    """
    verdict = False
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        parts = pathlib.PurePath(name).parts
        places = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        if "**/" in rule:
            places = list(parts)
        if any(fnmatch.fnmatchcase(place, pattern) for place in places):
            verdict = not rule.startswith("!")
    return verdict


def test_the_image_installs_exact_versions_and_extras_that_exist():

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    named = re.search(r"an extra of pyproject.toml: ([^.]*)\.", DOCKERFILE).group(1)
    assert set(re.split(r", | or ", named)) <= set(extras) and "hf" in extras
    installs = re.findall(r"-m pip install ([^&]*)", DOCKERFILE)
    assert installs and all('--constraint "constraints/${minor}.txt"' in i for i in installs)
    for minor in re.findall(r'"(py3\d+)"', DOCKERFILE):
        assert (ROOT / "constraints" / f"{minor}.txt").is_file()


def test_the_image_is_not_root_and_hands_signals_on():
    """SIGTERM asks a run to save; process 1 would not get it by default."""
    users = re.findall(r"^USER (.*)", DOCKERFILE, flags=re.M)
    assert users[-1].split(":")[0] not in ("root", "0")
    assert json.loads(re.search(r"^ENTRYPOINT (.*)", DOCKERFILE, flags=re.M).group(1)) == [
        "tini",
        "--",
    ]
    assert "command" not in pod_of(manifest("--gpus", "8"))["containers"][0], (
        "tini would be left out"
    )
    (folder,) = re.findall(r"^WORKDIR (.*)", DOCKERFILE, flags=re.M)
    assert f"--container-workdir={folder}" in (HOSTS / "slurm.sh").read_text(encoding="utf-8")
