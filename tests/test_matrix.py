"""The runs on other machines: every setting is covered, and how a run ends is read off its log."""

from __future__ import annotations

import sys

import pytest

from tests import matrix

LOG = """
=========================== short test summary info ============================
FAILED tests/test_a.py::test_b[c d] - assert 1 == 2
ERROR tests/test_c.py
2 skipped: 2 × needs chromium on PATH
1 failed, 4353 passed, 2 skipped, 3 warnings, 1 error in 572.10s (0:09:32)
make: *** [Makefile:79: test] Error 1
"""


def test_covering_runs_have_every_setting_and_each_one_interpreter():
    rows = [row.split("+") for row in matrix.COVERING]
    assert {name for row in rows for name in row} == matrix.SETTINGS.keys()
    for row in rows:
        assert sum(matrix.SETTINGS[name].python is not None for name in row) == 1


def test_end_of_a_run_is_read_off_its_log():
    found = matrix.read_result(2, 647.0, LOG)
    assert found.counts == {"failed": 1, "passed": 4353, "skipped": 2, "error": 1}
    assert found.failures == ["tests/test_a.py::test_b[c d]", "tests/test_c.py"]
    assert str(found) == "FAILED  4,353 passed, 1 failed, 2 skipped  647 s"


def test_setting_that_is_not_there_is_named():
    with pytest.raises(SystemExit, match="no setting 'avx3'; there are sse4_2"):
        matrix.settings_of("avx2+avx3")


def test_run_is_made_under_the_settings_of_its_row(tmp_path, monkeypatch):
    """A fake `make` prints its arguments and environment."""
    program = tmp_path / "make"
    told = "signal.getsignal(signal.SIGINT) == signal.SIG_IGN, os.environ['TZ'], sys.argv[1:3]"
    text = f"#!{sys.executable}\nimport os, signal, sys\nprint({told})\nprint('3 passed')\n"
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(matrix, "clone", lambda folder, python: folder)
    result = matrix.run("background+zone+load", tmp_path, {"python": "/bin/py"}, "")
    assert (result.status, result.counts) == (0, {"passed": 3})
    log = (tmp_path / "background+zone+load.log").read_text(encoding="utf-8")
    assert log.startswith("True Asia/Kathmandu ['test', 'PYTHON=/bin/py']")
