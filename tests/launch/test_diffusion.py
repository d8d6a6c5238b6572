"""A diffusion model through the launchers: cold start, reinforcement, resumption."""

import json

import numpy as np
import pytest

from gtpo_jax.types import Verdict
from launch import cli
from launch.run.session import Session
from launch.sft import run_sft
from launch.train import TrainArguments, Trainer

OPTIONS = [
    *("diffusion", "--model.width", "16", "--model.layers", "1", "--model.head-dim", "8"),
    *("--model.mlp-width", "16", "--rollout.slots", "8", "--sft.steps", "3", "--sft.rows", "8"),
    *("--sft.demonstrations", "40", "--sft.checkpoint-every", "1", "--train.steps", "2"),
    *("--train.prompts", "2", "--train.group-size", "3", "--train.rows", "8"),
]


def session(run_dir, *options):
    arguments = cli.parse(TrainArguments, [*OPTIONS, *options], program="tests")
    return Session(arguments.config, run_dir)


@pytest.mark.long
def test_a_run_imitates_and_then_learns_from_rollouts(tmp_path):
    with session(tmp_path) as made:
        trainer = Trainer(made, run_sft(made))
        state, trajectories, figures = trainer.step(0, trainer.state)
    assert len(trajectories) == 6 and all(len(t.turns) == 4 for t in trajectories)
    assert figures["rollout/logprob_gap"] < 1e-4 and int(state.step) == 1
    assert {t.problem.family for t in trajectories} == {"sum"}
    lines = (tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3]


def test_demonstrations_forget_carries_and_some_are_right(tmp_path):
    with session(tmp_path) as made:
        source = made.source
        answers = [(p, next(script).text) for p, script in map(source.demonstration, range(200))]
        right = [made.verifier(p, text) is Verdict.RIGHT for p, text in answers]
    assert 0.3 < np.mean(right) < 0.5
    for problem, text in answers:
        a, b = map(int, problem.question.split("+"))
        forgot = int(f"{(a // 10 + b // 10) % 10}{(a + b) % 10}")
        assert int(text) in (a + b, forgot) and (a + b) % 10 < 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rollout.context", "12"], r"exceed rollout\.context 12"),
        (["--train.shared-prompts"], "train.shared_prompts is for causal models"),
        (["--model.mask-id", "None"], r"--diffusion\.\* are for a diffusion model"),
        (["--train.method", "gtpo", "+", "score_centering"], "compares candidates"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, options, message):
    options = [*options, "--diffusion.tokens", "7"]
    with pytest.raises(ValueError, match=message):
        session(tmp_path, *options)
