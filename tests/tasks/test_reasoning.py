"""Families of reasoning-gym: made anew from an id, held apart, judged by the package."""

import subprocess
import sys

import pytest

from gtpo_jax.tasks.generated import GeneratedTask, is_held_out
from gtpo_jax.types import Problem, Verdict
from gtpo_jax.verifiers import reasoning_gym

pytest.importorskip("reasoning_gym", reason="needs the extra `reasoning`")

NAMES = ("reasoning-gym/chain_sum", "reasoning-gym/countdown", "reasoning-gym/rush_hour")


def make(*names, level=1, seed=0):
    return GeneratedTask(seed=seed, families=names, level=level)


def test_problems_are_those_of_the_family_and_repeatable():
    task, again = make(*NAMES), make(*NAMES)
    problems = [task.train_problem(i) for i in range(30)]
    assert problems == [again.train_problem(i) for i in range(30)]
    assert [p.family for p in problems[:4]] == [*NAMES, NAMES[0]]
    assert {p.verifier for p in problems} == {"reasoning-gym"}
    assert len({p.id for p in problems}) == 30
    chain = [p for p in problems if p.family == NAMES[0]]
    for p in chain:
        expression = p.question.split("problem:")[1].split("=")[0]
        assert p.answer == str(eval(expression))
    assert problems != [make(*NAMES, seed=1).train_problem(i) for i in range(30)]


@pytest.mark.slow
def test_other_processes_make_the_same_problems():
    code = (
        "from tests.tasks.test_reasoning import make, NAMES;"
        "print([make(*NAMES).train_problem(i) for i in range(6)])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == str([make(*NAMES).train_problem(i) for i in range(6)])


def test_training_never_meets_a_held_out_question():
    task = make(NAMES[0], level=4)
    trained = {task.train_problem(i).question for i in range(600)}
    held_out = {p.question for p in task.held_out(30)}
    assert len(held_out) > 25
    assert not trained & held_out
    assert all(map(is_held_out, held_out)) and not any(map(is_held_out, trained))


def test_levels_are_steps_of_the_curriculum():
    """More terms and longer numbers at each step, until there is none."""

    def digits(level):
        task = make(NAMES[0], level=level)
        return sum(c.isdigit() for i in range(40) for c in task.train_problem(i).question)

    lengths = [digits(level) for level in (1, 2, 4, 8)]
    assert lengths == sorted(set(lengths))
    assert make(NAMES[0], level=3).train_problem(0).id.startswith("reasoning-gym/chain_sum/3/")
    with pytest.raises(ValueError, match="chain_sum cannot be made at level 99: its highest"):
        make(NAMES[0], level=99)


@pytest.mark.parametrize(
    ("name", "level", "reason"),
    [
        ("poetry", 1, r"reasoning-gym \S+ has no family 'poetry'; it has .*chain_sum"),
        ("gsm_symbolic", 2, "it has no curriculum, so its level is 1"),
        ("word_ladder", 1, "makes other problems in every process"),
        ("simple_integration", 1, "runs answers as Python where nothing isolates them"),
        ("knight_swap", 1, "cannot be made at level 1: min_nodes"),
    ],
)
def test_family_that_cannot_be_trained_on_is_refused(name, level, reason):
    with pytest.raises(ValueError, match=reason):
        make(f"reasoning-gym/{name}", level=level)


def test_missing_package_names_the_extra(monkeypatch):
    reasoning_gym.make_dataset.cache_clear()
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ValueError, match=r"needs the package reasoning-gym: pip install -e"):
        make(NAMES[0])


def test_demonstrations_are_those_of_our_own_families():
    mixed = make(NAMES[0], "word", NAMES[1])
    assert {mixed.demonstration(i)[0].family for i in range(6)} == {"word"}
    assert [mixed.train_problem(i).family for i in range(2)] == [NAMES[0], "word"]
    with pytest.raises(ValueError, match="have no demonstrations; add one that has, of arithmetic"):
        make(NAMES[0]).demonstration(0)


def test_answers_are_judged_by_the_family():
    right = Verdict.RIGHT
    chain, countdown, rush = (make(name).train_problem(0) for name in NAMES)
    assert reasoning_gym.verify(chain, f" {chain.answer}\n") is right
    assert reasoning_gym.verify(chain, str(int(chain.answer) + 1)) is Verdict.WRONG
    assert (
        reasoning_gym.verify(chain, f"It is {chain.answer}") is Verdict.WRONG
    )  # a part of the score
    assert reasoning_gym.verify(countdown, countdown.answer) is right
    turned = f"0 * 1 + {countdown.answer}"
    assert reasoning_gym.verify(countdown, turned) is Verdict.WRONG
    assert rush.answer == ""  # several ways lead out, and the package names none
    assert reasoning_gym.verify(rush, "AA+1") is Verdict.WRONG
    for problem in (chain, countdown, rush):
        assert reasoning_gym.verify(problem, None) is Verdict.NO_ANSWER
        assert reasoning_gym.verify(problem, "  ") is Verdict.NO_ANSWER


def test_other_right_answers_count():
    """In countdown, the same sum in another order is right, though not the text of the answer."""
    problem = make(NAMES[1]).train_problem(3)
    assert reasoning_gym.verify(problem, f"({problem.answer})*1/1") is Verdict.WRONG
    assert reasoning_gym.verify(problem, f"(({problem.answer}))") is Verdict.RIGHT


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('sys').modules.clear()",
        "print(1)",
        "9**9**9**9",
        "9 * * 9",
        "1+" * 600 + "1",
        "exit()",
    ],
)
def test_answer_is_never_run_as_a_program(answer, capsys):
    for name in ("countdown", "puzzle24", "spiral_matrix", "n_queens", "binary_matrix"):
        problem = make(f"reasoning-gym/{name}").train_problem(0)
        assert reasoning_gym.verify(problem, answer) is Verdict.WRONG
        assert reasoning_gym.verify(problem, problem.answer) is Verdict.RIGHT
    assert capsys.readouterr().out == ""


def test_problem_that_is_no_longer_made_is_unverifiable():
    problem = make(NAMES[0]).train_problem(0)
    changed = Problem(id=problem.id, question="Another one", answer=problem.answer)
    assert reasoning_gym.verify(changed, problem.answer) is Verdict.UNVERIFIABLE
    gone = problem.id.replace("chain_sum", "no_such_family")
    changed = Problem(id=gone, question=problem.question, answer="1")
    assert reasoning_gym.verify(changed, "1") is Verdict.UNVERIFIABLE
    with pytest.raises(ValueError, match="is no id of a problem of reasoning-gym"):
        reasoning_gym.verify(Problem(id="7", question="q", answer="1"), "1")
