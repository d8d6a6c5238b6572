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


@pytest.mark.slow
def test_notebook_trains_a_policy_that_improves_and_draws_it():
    executed = execute(NOTEBOOK, REPORT, replaced={"STEPS = 8": "STEPS = 4"})
    (output,) = executed.cells[-1].outputs
    computed = json.loads(output.text)
    assert computed["imitation"][-1] < 0.1 * computed["imitation"][0]
    curve = computed["curve"]
    assert 0.2 < curve[0] < 0.5, "it imitates demonstrators, most of whom err"
    assert len(curve) == 5 and curve[-1] > curve[0] + 0.1
    assert pictures(executed) == 1
    assert NOTEBOOK.stat().st_size < 100_000


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
