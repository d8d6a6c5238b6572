"""The Python that the pages print runs with what a page takes for granted; all its names exist."""

from __future__ import annotations

import ast
import collections
import dataclasses
import importlib
import json
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gtpo_jax
from gtpo_jax import methods, rollout
from gtpo_jax.learner import packing
from gtpo_jax.results import records
from gtpo_jax.types import Problem
from models.hf import names as hf_names
from tests.commands import PAGES, ROOT, blocks
from tests.hub_folder import write_folder
from tests.tiny import BYTES, make_params, make_trajectory

BLOCKS = [
    pytest.param(page, number, id=f"{page.name}-{number}")
    for page in PAGES
    for number in range(len(blocks(page, "python")))
]
# Page and number of a block → why it is only looked at.
NOT_RUN = {
    ("models.md", 0): "a billion parameters",
    ("rollout.md", 0): "rows and context of an accelerator",
    ("rollout.md", 1): "the engine of the example before",
}


def algorithms(folder) -> dict[str, object]:
    rng = np.random.default_rng(0)
    trajectories = [make_trajectory(rng, [(3, 2), (4, 0)], success=i == 0) for i in range(4)]
    batch = packing.pack(trajectories, np.ones((4, 2)), micro_batches=1, rows=4, row_length=16)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batch)
    maths = ("ratios", "similarity", "turns")
    parts = ("credit", "losses", "prompts", "reductions", "rewards")
    counts = [field.name for field in dataclasses.fields(rollout.RolloutStats)]
    engine = types.SimpleNamespace(
        run=lambda params, requests, seed, step: (
            [
                make_trajectory(rng, [(3, 0)], group=r.group, success=r.sample % 2 == 0)
                for r in requests
            ],
            rollout.RolloutStats(**dict.fromkeys(counts, 0)),
        )
    )
    return {
        **{name: importlib.import_module(f"gtpo_jax.maths.{name}") for name in maths},
        **{name: importlib.import_module(f"gtpo_jax.parts.{name}") for name in parts},
        "methods": methods,
        **{"outcomes": jnp.array([1.0, 0, 0, 0]), "success": jnp.array([True] + [False] * 3)},
        **{"violations": jnp.zeros((4, 2), bool), "turn_mask": jnp.ones((4, 2), bool)},
        **{"group_ids": jnp.zeros(4, jnp.int32), "included": jnp.ones(4, bool)},
        **{"code": jnp.ones((4, 9), jnp.int32), "code_lengths": jnp.full(4, 9)},
        **{"trajectory_ids": batch.trajectory_ids, "turn_ids": batch.turn_ids},
        "policy_logprobs": batch.behavior_logprobs + 0.1,
        "behavior_logprobs": batch.behavior_logprobs,
        **{"batch": batch, "rollout": rollout, "engine": engine, "params": {}},
        "problems": (Problem(id=f"{i}", question="q", answer="a") for i in range(100)),
    }


def dialogue(folder) -> dict[str, object]:
    write_folder(folder / "models" / "Qwen2.5-1.5B-Instruct")
    return {}


def models(folder) -> dict[str, object]:
    config = write_folder(folder / "hub")
    params = jax.tree.map(jnp.asarray, make_params(config))
    named = dict(hf_names.export_params(config, params))
    text = (folder / "hub" / "config.json").read_text(encoding="utf-8")
    return {
        **{"config_json": json.loads(text), "read": named.__getitem__},
        **{"config": config, "params": params, "key": jax.random.key(0), "jax": jax},
        "optimizer": optax.adam(1e-3),
    }


def own(folder) -> dict[str, object]:
    rng = np.random.default_rng(0)
    return {
        "trajectories": [
            make_trajectory(rng, [(3, 2), (4, 0)], success=success) for success in (True, False)
        ]
    }


def report(folder) -> dict[str, object]:
    trajectory = make_trajectory(np.random.default_rng(0), [(3, 0)])
    path = records.step_path("runs/mine/train/trajectories", 10)
    path.parent.mkdir(parents=True)
    records.write_records(path, [records.trajectory_record(trajectory, BYTES, step=10)])
    return {}


def tasks(folder) -> dict[str, object]:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra `tasks`")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `tasks`")
    easy = [{"question": f"{i}+1?", "answer": f"So #### {i + 1}"} for i in range(5)]
    text = "".join(json.dumps(record) + "\n" for record in easy)
    (folder / "gsm8k.jsonl").write_text(text, encoding="utf-8")
    for name, more in (("math", {}), ("MATH-500", {"answer": "2", "unique_id": "t/1"})):
        rows = [
            {"problem": f"{i}+{i}? ({name})", "solution": f"\\boxed{{{2 * i}}}", "level": "Level 1"}
            | {"type": "Algebra", "subject": "Algebra"}
            | {key: f"{value}{i}" for key, value in more.items()}
            for i in range(5)
        ]
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")
    return {}


def weights(folder) -> dict[str, object]:
    write_folder(folder / "Qwen2.5-1.5B")
    return {"shardings": None}


GIVEN = {
    "algorithms.md": algorithms,
    "dialogue.md": dialogue,
    "models.md": models,
    "own.md": own,
    "report.md": report,
    "tasks.md": tasks,
    "weights.md": weights,
}


@pytest.mark.parametrize("page", dict.fromkeys(p.values[0] for p in BLOCKS), ids=lambda p: p.name)
@pytest.mark.filterwarnings("ignore:'VariableState' was removed:DeprecationWarning")
@pytest.mark.slow
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = GIVEN.get(page.name, lambda folder: {})(tmp_path)
    names: dict[str, object] = {}
    for number, code in enumerate(blocks(page, "python")):
        names |= given  # a section takes them as they were
        if (page.name, number) not in NOT_RUN:
            exec(compile(code, f"{page.name}, block {number}", "exec"), names)


@pytest.mark.parametrize(("page", "number"), BLOCKS)
def test_names_that_a_page_takes_from_modules_are_there(page, number):
    tree = ast.parse(blocks(page, "python")[number])
    names: dict[str, object] = {}
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), page.name, "exec"), names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = names.get(node.value.id)
            assert not isinstance(owner, types.ModuleType) or hasattr(owner, node.attr), (
                f"{node.value.id} has no {node.attr}"
            )


def test_every_block_that_is_not_run_is_there():
    counts = collections.Counter(p.values[0].name for p in BLOCKS)
    assert all(number < counts[page] for page, number in NOT_RUN)


def places() -> list[str]:
    """Names in the last column of the glossary: modules, files, and names of `gtpo_jax`."""
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    columns = [line.split(" | ")[-1] for line in page.splitlines() if line.startswith("| ")]
    named = [name for column in columns for name in re.findall("`([^`]+)`", column)]
    return sorted({name for name in named if not name.startswith(("+", "-"))})


@pytest.mark.parametrize("place", places())
def test_place_that_the_glossary_names_is_there(place):
    if "/" in place:
        assert any((folder / place).exists() for folder in (ROOT, ROOT / "gtpo_jax"))
        return
    first, *names = place.removeprefix("gtpo_jax.").split(".")
    owner = getattr(gtpo_jax.types, first) if first[0].isupper() else getattr(gtpo_jax, first)
    for name in names:
        fields = getattr(owner, "__dataclass_fields__", {})
        assert name in fields or hasattr(owner, name), f"{owner} has no {name}"
        owner = getattr(owner, name, None)
