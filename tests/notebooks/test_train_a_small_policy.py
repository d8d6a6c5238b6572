"""The notebook and the script train a policy with library functions alone, and it improves."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest

from tests.notebooks.kernel import ROOT, execute, pictures

NOTEBOOK = ROOT / "notebooks" / "train_a_small_policy.ipynb"
SCRIPT = NOTEBOOK.with_suffix(".py")
REPORT = """
import json
print(json.dumps({"curve": list(map(float, curve)), "imitation": imitation}))
"""


def executed_with(*, updates: int, steps: int) -> tuple[list[float], list[float]]:
    """Success after each step, and losses of the imitation, of the notebook with these numbers."""
    fewer = {"UPDATES = 200": f"UPDATES = {updates}", "STEPS = 8": f"STEPS = {steps}"}
    executed = execute(NOTEBOOK, REPORT, replaced=fewer)
    (output,) = executed.cells[-1].outputs
    computed = json.loads(output.text)
    assert pictures(executed) == 1
    assert len(computed["curve"]) == steps + 1 and len(computed["imitation"]) == updates
    return computed["curve"], computed["imitation"]


@pytest.mark.slow
def test_notebook_runs_with_few_updates_and_draws_its_curves():
    curve, imitation = executed_with(updates=50, steps=1)
    assert imitation[-1] < 0.5 * imitation[0]
    assert all(0 <= success <= 1 for success in curve)
    assert NOTEBOOK.stat().st_size < 100_000


@pytest.mark.long
def test_notebook_trains_a_policy_that_improves():
    curve, imitation = executed_with(updates=200, steps=4)
    assert imitation[-1] < 0.1 * imitation[0]
    assert 0.2 < curve[0] < 0.5, "it imitates demonstrators, most of whom err"
    assert curve[-1] > curve[0] + 0.1


@pytest.mark.long
def test_script_prints_the_success_after_each_step():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--updates", "20", "--steps", "2"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    steps, rates = zip(*re.findall(r"step (\d+): (\d\.\d+) of", done.stdout), strict=True)
    assert list(map(int, steps)) == [0, 1, 2]
    assert all(0 <= float(rate) <= 1 for rate in rates)


def test_script_is_short_and_imports_the_library_and_models_alone():
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    modules = [
        node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
    ]
    ours = {module.split(".")[0] for module in modules if module} & set(os.listdir(ROOT))
    assert ours == {"gtpo_jax", "models"}
