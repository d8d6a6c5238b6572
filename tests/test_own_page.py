"""docs/own.md: the file that it prints does in commands what the page says."""

from __future__ import annotations

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.methods import make_method
from configs.parts import make_tool, make_verifier
from configs.problems import make_mapping
from configs.schema import ToolConfig, VerifierConfig
from gtpo_jax import methods
from gtpo_jax.learner import packing
from gtpo_jax.tasks.mappings import MAPPINGS
from gtpo_jax.tasks.reading import read_problems
from gtpo_jax.types import Problem, ToolStatus, Verdict
from tests.commands import ROOT, blocks, in_blocks, own_module
from tests.tiny import make_trajectory

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "own.md"


def methods_of_the_page() -> list[list[str]]:
    """The words behind every `--train.method` of the page."""
    found = []
    for command in in_blocks(PAGE):
        words = command.words()
        if "--train.method" in words:
            after = words[words.index("--train.method") + 1 :]
            found.append([*itertools.takewhile(lambda word: not word.startswith("--"), after)])
    return found


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text(own_module(PAGE), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_module", None)


def turn_credit(words: list[str]) -> methods.TurnCredit:
    """The credit that a method gives a success and two failures of one group."""
    rng = np.random.default_rng(0)
    made = [make_trajectory(rng, [(3, 2), (4, 0)], success=i == 0) for i in range(3)]
    method = make_method(words)
    episodes = packing.episode_batch(made, max_turns=2, needs=method.facts)
    episodes = jax.tree.map(jnp.asarray, episodes)
    return methods.assign(method, method.credit.init(), episodes)[1]


@pytest.mark.parametrize("words", methods_of_the_page(), ids=" ".join)
def test_method_of_the_page_gives_credit_with_the_names_that_the_page_says(words):
    credit, text = turn_credit(words), " ".join(words)
    assert np.all(credit.advantages[0] > credit.advantages[1])
    assert ("brevity" in credit.parts) == ("brevity" in text or "my_method" in text)
    assert ("bounded" in credit.links) == ("my_method" in text)
    assert ("squashed" in credit.links) == ("squash" in text)


def test_term_of_the_page_says_what_it_needs():
    assert make_method(["gtpo", "+", "my_module:hedge", "weight=2"]).loss.needs == {"collisions"}


def test_option_of_the_method_of_the_page_scales_its_advantages():
    once = turn_credit(["my_module:my_method"]).advantages
    twice = turn_credit(["my_module:my_method", "scale=2"]).advantages
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_tool_of_the_page_looks_facts_up():
    tool = make_tool(ToolConfig(factory="my_module:make_tool"))
    result = tool.submit("density of gold", timeout=1.0).result()
    assert result.status is ToolStatus.OK and result.stdout == "19.3 g/cm3"
    assert tool.submit("print(1)").result().status is ToolStatus.ERROR
    tool.close()


def test_verifier_of_the_page_compares_words():
    verifier = make_verifier(VerifierConfig(kind="my_module:same_words"), None)
    problem = Problem(id="1", question="q", answer="red and blue")
    answers = {"Blue and red": Verdict.RIGHT, "blue": Verdict.WRONG, " ": Verdict.NO_ANSWER}
    assert {answer: verifier(problem, answer) for answer in answers} == answers


def test_task_of_the_page_is_read_with_its_further_fields(tmp_path):
    [lines] = blocks(PAGE, "json")
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    first, second = read_problems(tmp_path / "train.jsonl", MAPPINGS["plain"]).entries
    assert first.problem.info == {"longest": 40} and second.problem.answer == "15"


def test_mapping_of_the_page_reads_another_schema(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"prompt": "1 + 1?", "gold": 2}\n', encoding="utf-8")
    [entry] = read_problems(path, make_mapping("my_module:from_record")).entries
    assert (entry.problem.id, entry.problem.answer) == ("other-1", "2")
