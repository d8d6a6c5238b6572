"""The doctor: reasons that the host's settings give, judgments of the self-test, exit status."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from concurrent import futures

import pytest

from gtpo_jax import types
from gtpo_jax.tools import IsolationError, PythonExecutor, checkup, doctor, machine
from gtpo_jax.tools.sandbox import properties, survey
from tests.tools.calls import ROOT, linux_only

pytestmark = pytest.mark.slow

GRANTED = machine.Survey(namespaces="", landlock="", seccomp="", landlock_version=4)


def layer(name, asked, root, environ=()):
    (found,) = (one for one in machine.explain(asked, root, dict(environ)) if one.name == name)
    return found


def fake_root(path, files):
    for name, text in {"proc/self/ns/user": "", **files}.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def refused(name, number, **other):
    return machine.Survey(**{**vars(GRANTED), name: f"step: {os.strerror(number)}", **other})


def diagnosis(**changes):
    held = dict.fromkeys(properties.PROPERTIES, "a layer")
    fields = {
        "host": {"system": "Linux"},
        "layers": machine.explain(GRANTED),
        "properties": held,
        "missing": [],
        "allow": [],
        "self_test": [checkup.Check(name="prints", ok=True)],
        "figures": {"call, median": (2.5, "ms")},
    }
    return doctor.Diagnosis(**fields | changes)


# Reasons.


def test_layers_that_the_host_offers_need_no_remedy(tmp_path):
    root = fake_root(tmp_path, {"proc/sys/kernel/unprivileged_userns_clone": "0\n"})
    found = {one.name: one for one in machine.explain(GRANTED, root, {})}
    assert [found[name].offered for name in ("namespaces", "landlock", "seccomp")] == [True] * 3
    assert found["landlock"].detail == "version 4"
    assert not any(one.remedies for one in found.values())


@pytest.mark.parametrize(
    ("name", "refuses", "permits"),
    [
        ("kernel/unprivileged_userns_clone", "0\n", "1\n"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1\n", "0\n"),
        ("user/max_user_namespaces", "0\n", "15000\n"),
        ("user/max_net_namespaces", "0\n", "15000\n"),
    ],
)
def test_setting_that_refuses_namespaces_is_named_with_its_remedy(tmp_path, name, refuses, permits):
    asked = refused("namespaces", errno.EPERM)
    root = fake_root(tmp_path, {f"proc/sys/{name}": refuses})
    found = layer("namespaces", asked, root)
    dotted = name.replace("/", ".")
    assert not found.offered and f"{dotted} = {refuses.strip()}" in found.detail
    (remedy,) = found.remedies
    assert remedy.startswith(f"sysctl -w {dotted}=")
    fake_root(tmp_path, {f"proc/sys/{name}": permits})
    assert dotted not in layer("namespaces", asked, root).detail


def test_settings_for_ordinary_users_do_not_explain_a_refusal_to_the_privileged(tmp_path):
    files = {"kernel/unprivileged_userns_clone": "0", "user/max_pid_namespaces": "0"}
    root = fake_root(tmp_path, {f"proc/sys/{name}": text for name, text in files.items()})
    found = layer("namespaces", refused("namespaces", errno.EPERM, privileged=True), root)
    assert found.remedies == ("sysctl -w user.max_pid_namespaces=15000",)


def test_kernel_without_user_namespaces_is_named(tmp_path):
    found = layer("namespaces", refused("namespaces", errno.EINVAL), tmp_path)
    assert found.remedies == ("a kernel with CONFIG_USER_NS",)


@pytest.mark.parametrize(
    ("marker", "environ", "flag"),
    [
        (".dockerenv", {}, "docker run --security-opt seccomp=unconfined"),
        ("run/.containerenv", {}, "podman run --security-opt seccomp=unconfined"),
        (".dockerenv", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "seccompProfile"),
        ("other", {}, "SystemCallFilter="),
    ],
)
def test_filter_around_the_process_names_the_flag_of_the_container(tmp_path, marker, environ, flag):
    status = {"proc/self/status": "Name:\tpython\nSeccomp:\t2\n", marker: ""}
    root = fake_root(tmp_path, status)
    for name in ("namespaces", "landlock", "seccomp"):
        found = layer(name, refused(name, errno.EPERM), root, environ)
        assert "seccomp filter" in found.detail
        assert len(found.remedies) == 1 and flag in found.remedies[0]
    fake_root(tmp_path, {"proc/self/status": "Name:\tpython\nSeccomp:\t0\n"})
    assert layer("seccomp", refused("seccomp", errno.EPERM), root, environ).remedies == ()


def test_apparmor_profile_is_named(tmp_path):
    files = {"proc/self/attr/current": "docker-default (enforce)\n", ".dockerenv": ""}
    found = layer("namespaces", refused("namespaces", errno.EACCES), fake_root(tmp_path, files))
    assert "AppArmor profile docker-default" in found.detail
    assert "apparmor=unconfined" in found.remedies[0]


@pytest.mark.parametrize(
    ("number", "files", "reason", "remedy"),
    [
        (errno.ENOSYS, {"proc/sys/kernel/osrelease": "5.4.0-1"}, "5.4.0-1 is older", "5.13"),
        (errno.ENOSYS, {"proc/sys/kernel/osrelease": "6.1.0"}, "not built", "LANDLOCK"),
        (
            errno.EOPNOTSUPP,
            {"sys/kernel/security/lsm": "capability,apparmor"},
            "booted",
            "lsm=landlock,capability,apparmor",
        ),
    ],
)
def test_landlock_that_is_absent_says_why(tmp_path, number, files, reason, remedy):
    found = layer("landlock", refused("landlock", number), fake_root(tmp_path, files))
    assert not found.offered and reason in found.detail
    assert len(found.remedies) == 1 and remedy in found.remedies[0]


def test_gvisor_is_recognized_and_promises_no_remedy(tmp_path):
    files = {
        "proc/version": "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016",
        "proc/self/status": "Seccomp:\t2\n",
        "proc/sys/kernel/osrelease": "6.1.0",
    }
    root = fake_root(tmp_path, files)
    assert machine.container(root, {}) == "gVisor"
    found = layer("landlock", refused("landlock", errno.ENOSYS), root)
    assert "gVisor" in found.detail and not found.remedies
    found = layer("namespaces", refused("namespaces", errno.EPERM), root)
    assert "gVisor" in found.detail and not found.remedies


def test_python_that_root_alone_can_read_is_named_where_it_matters(tmp_path):
    asked = refused("namespaces", errno.EPERM, root=True, closed_to_others="/root")
    found = layer("user", asked, tmp_path)
    assert not found.offered and found.detail.startswith("/root is closed")
    for granted in ({"namespaces": ""}, {"landlock": "step: refused"}):  # the latter seals
        assert layer("user", machine.Survey(**vars(asked) | granted), tmp_path).offered
    assert not layer("user", GRANTED, tmp_path).offered


def test_closed_folder_on_the_way_is_found(tmp_path):
    open_to_all = os.path.dirname(os.path.realpath("/bin/sh"))
    assert survey.closed_to_others([open_to_all]) == ""
    package = tmp_path / "closed" / "package"
    package.mkdir(parents=True)
    package.chmod(0o755)
    (tmp_path / "closed").chmod(0o700)
    found = survey.closed_to_others([open_to_all, str(package)])
    assert str(package).startswith(found + "/") and os.stat(found).st_mode & 0o1 == 0
    (tmp_path / "closed").chmod(0o755)
    assert survey.closed_to_others([str(package)]) != str(tmp_path / "closed")


# The self-test.


class SilentTool:
    """Answers every call with success, at once, and without a word."""

    def submit(self, code, *, timeout=None, session=None):
        future = futures.Future()
        future.set_result(types.ToolResult(status=types.ToolStatus.OK))
        return future

    def end_session(self, session):
        pass


def test_self_test_of_a_tool_that_runs_nothing_fails_in_every_part():
    report = dict.fromkeys(properties.PROPERTIES, "a layer")
    checks = checkup.self_test(SilentTool(), ("numpy", "other"), report, 1 << 25)
    assert len(checks) >= 12
    assert [check.name for check in checks if check.ok or not check.detail] == []


def test_measuring_calls_that_fail_raises():
    with PythonExecutor(max_running=1, preload=(), allow=properties.PROPERTIES) as tool:
        with pytest.raises(RuntimeError, match="ended as error"):
            checkup.latencies(tool, "1 / 0", 1, None)
        with pytest.raises(RuntimeError, match="ended as error"):
            checkup.calls_per_second(tool, "1 / 0", 4, submitters=2)


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 5), (51, 6), (95, 10), (100, 10)])
def test_percentile_is_the_nearest_rank(percent, value):
    assert checkup.percentile([10, 3, 1, 2, 5, 4, 6, 7, 9, 8], percent) == value


# The command.


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 0),
        ({"allow": ["net"]}, 0),
        ({"missing": ["net"], "allow": ["net"]}, 2),
        ({"self_test": [checkup.Check(name="prints", ok=False, detail="nothing")]}, 1),
        ({"missing": ["net"], "self_test": [checkup.Check(name="prints", ok=False)]}, 1),
        ({"broken": "the zygote died", "self_test": ()}, 1),
    ],
)
def test_exit_status_tells_weak_from_broken(monkeypatch, tmp_path, changes, status):
    monkeypatch.setattr(doctor, "examine", lambda **_: diagnosis(**changes))
    path = tmp_path / "folder" / "report.json"
    assert doctor.main([f"--json={path}"]) == status
    assert json.loads(path.read_text())["exit_status"] == status


def test_property_that_is_missing_is_shown_with_what_to_write(monkeypatch, capsys):
    held = {**dict.fromkeys(properties.PROPERTIES, "a layer"), "net": None, "signals": None}
    weak = diagnosis(properties=held, missing=["net", "signals"], allow=["net", "signals"])
    monkeypatch.setattr(doctor, "examine", lambda **_: weak)
    doctor.main([])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.rstrip().endswith("MISSING") for line in lines) == 2
    assert any("PythonExecutor(allow=('net', 'signals'))" in line for line in lines)
    assert all(line.isascii() or "·" in line for line in lines), "a table with lines, to a file"


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ("--preload=no_such_package", "no_such_package"),
        ("--allow=nett", "nett"),
        ("--max-running=0", "max_running"),
        ("--no-such-option", "no-such-option"),
    ],
)
def test_wrong_option_has_a_status_of_its_own(capsys, option, error):
    assert doctor.main([option, "--calls=1"]) == 64
    assert error in capsys.readouterr().err


def test_doctor_examines_this_host(tmp_path, capsys):
    path = tmp_path / "report.json"
    status = doctor.main(["--preload=numpy", "--max-running=2", "--calls=4", f"--json={path}"])
    record = json.loads(path.read_text())
    assert list(record["properties"]) == list(properties.PROPERTIES)
    assert record["missing"] == [k for k, v in record["properties"].items() if v is None]
    assert record["self_test"]["numpy works"] == {"ok": True, "detail": ""}
    assert all(check["ok"] for check in record["self_test"].values())
    assert status == record["exit_status"] == (2 if record["missing"] else 0)
    assert {"namespaces", "landlock", "seccomp", "user"} == set(record["layers"])
    assert record["figures"]["call, median"]["unit"] == "ms"
    assert all(figure["value"] > 0 for figure in record["figures"].values())
    assert "Self-test" in capsys.readouterr().out


def test_properties_that_are_missed_one_after_the_other_are_all_told(monkeypatch):
    class Refusing(PythonExecutor):
        def __init__(self, **options):
            for name in ("signals", "net"):
                if name not in options["allow"]:
                    raise IsolationError("refused", (name,))
            super().__init__(**{**options, "allow": properties.PROPERTIES})

    monkeypatch.setattr(doctor.executor, "PythonExecutor", Refusing)
    found = doctor.examine(max_running=1, preload=(), allow=("limits",), calls=1)
    assert found.missing == ["signals", "net"] and found.status != 0
    assert found.allow == ["limits", "net", "signals"]
    assert any(check.ok for check in found.self_test)


@linux_only
def test_doctor_on_a_host_that_refuses_every_layer_says_what_to_allow(tmp_path):
    path = tmp_path / "report.json"
    doctor_there = [
        *(sys.executable, "-m", "tests.tools.hosts", "nothing", "--"),
        *(sys.executable, "-m", "gtpo_jax.tools.doctor", f"--json={path}"),
        *("--preload=", "--max-running=1", "--calls=2"),
    ]
    done = subprocess.run(doctor_there, cwd=ROOT, capture_output=True, text=True, timeout=120)
    record = json.loads(path.read_text())
    layers = [record["layers"][name] for name in ("namespaces", "landlock", "seccomp")]
    assert not any(one["offered"] for one in layers)
    assert os.strerror(errno.EPERM) in record["layers"]["namespaces"]["detail"]
    assert {"fs_read", "net", "processes", "kernel_surface"} <= set(record["missing"])
    assert record["properties"]["limits"] is not None
    assert f"allow={tuple(record['allow'])!r}" in done.stdout
    assert [name for name, check in record["self_test"].items() if not check["ok"]] == []
    assert done.returncode == record["exit_status"] == 2
