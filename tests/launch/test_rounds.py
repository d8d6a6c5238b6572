"""Several methods in turn: the stages of a loop, and that they run."""

import json

import pytest

from launch import rounds
from launch.rounds import RoundsArguments
from tests.launch import small

pytestmark = pytest.mark.slow


def arguments(*options):
    return small.parse(RoundsArguments, *options)


def test_stages_alternate_with_their_learning_rates_and_seeds_of_their_own(tmp_path):
    made = arguments(
        *("--run-dir", tmp_path, "--methods", "grpo", "rloo", "--rounds", "2"),
        *("--learning-rates", "1e-6", "5e-7"),
    )
    found = list(rounds.stages(made))
    assert [stage.name for stage in found] == ["1 grpo", "1 rloo", "2 grpo", "2 rloo"]
    assert [stage.folder.name for stage in found] == ["01-grpo", "02-rloo", "03-grpo", "04-rloo"]
    assert [stage.config.train.method[0] for stage in found] == ["grpo", "rloo"] * 2
    assert [s.config.train.optimizer.learning_rate for s in found] == [1e-6, 5e-7] * 2
    assert len({stage.config.seed for stage in found} | {made.config.seed}) == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--learning-rates", "1e-6"), "one for each of 2 methods, got 1"),
        (("--rounds", "0"), "--rounds must be at least 1"),
        (("--train.method", "rloo"), "give those of a round as --methods"),
        (("--methods", "grpo", "nonsense"), "no method 'nonsense'"),
    ],
)
def test_wrong_options_are_told(options, words):
    with pytest.raises(ValueError, match=words):
        arguments("--methods", "grpo", "rloo", *options)


@pytest.mark.long
def test_each_stage_begins_where_the_one_before_ended_and_the_loop_resumes(tmp_path):
    options = (
        *("--run-dir", tmp_path / "run", "--methods", "grpo", "rloo", "--rounds", "1"),
        *("--train.steps", "1", "--train.eval-every", "0", "--json", tmp_path / "found.json"),
    )
    small.finish("rounds", *options)
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == ["cold start", "1 grpo", "1 rloo"]
    small.finish("rounds", *options)
    assert json.loads((tmp_path / "found.json").read_text()) == found
