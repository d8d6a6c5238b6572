"""Trains with several methods in turn, each from where the one before ended.

    python -m launch.rounds tiny --run-dir runs/veripo --methods grpo "dpo beta=0.1" --rounds 2

This is the loop of VerIPO (arXiv 2505.19000): GRPO, then a filter of its rollouts and DPO on what
passes, and again. Published: 8 rollouts, learning rates 1e-6 and then 5e-7 (`--learning-rates`),
DPO with beta .1; thresholds of the filter are unknown, and problems that are always right are not
dropped here. The same command continues a loop that was interrupted.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from rich.table import Table

from configs import resuming
from configs.methods import make_method, split
from configs.schema import RunConfig, TrainConfig
from configs.training import check_facts
from gtpo_jax.learner.checkpoint import has_checkpoint
from gtpo_jax.types import Params
from launch import cli
from launch.compare import COLD_START, folder_name
from launch.run import cluster, display, own
from launch.run.evaluator import MODES, Evaluator
from launch.run.gate import check_gate
from launch.run.session import Session
from launch.sft import run_sft
from launch.train import run_training


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundsArguments(cli.RunArguments):
    """Trains with several methods in turn."""

    run_dir: pathlib.Path = pathlib.Path("runs/rounds")
    """Folder of the cold start and of one run per stage."""
    methods: tuple[str, ...] = ("grpo", "dpo")
    """Methods of a round, in order. Each is one text with the words of `train.method`, and trains
    for `train.steps`."""
    rounds: int = 2
    """Number of rounds."""
    learning_rates: tuple[float, ...] = ()
    """Learning rate of each method. Empty: that of `train.optimizer`."""

    def __post_init__(self):
        if self.rounds < 1 or not self.methods:
            raise ValueError("--rounds must be at least 1, and --methods at least one")
        if self.learning_rates and len(self.learning_rates) != len(self.methods):
            raise ValueError(
                f"--learning-rates must be one for each of {len(self.methods)} methods, got"
                f" {len(self.learning_rates)}"
            )
        if self.config.train.method != TrainConfig.method:
            raise ValueError("--train.method is one method; give those of a round as --methods")
        for method in self.methods:
            make_method(split(method))

    @classmethod
    def begins_with(cls, argv: Sequence[str]) -> own.Own | None:
        saved = own.of_phase(cls.folder(argv) / COLD_START, "sft")
        return saved and dataclasses.replace(saved, scheduled=resuming.PHASES)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One method of one round."""

    name: str
    folder: pathlib.Path
    config: RunConfig


def stages(arguments: RoundsArguments) -> Iterator[Stage]:
    """The stages in order. Each has a seed of its own, and so problems of its own."""
    config = arguments.config
    rates = arguments.learning_rates or [config.train.optimizer.learning_rate] * len(
        arguments.methods
    )
    number = 0
    for count in range(1, arguments.rounds + 1):
        for method, rate in zip(arguments.methods, rates, strict=True):
            number += 1
            optimizer = dataclasses.replace(config.train.optimizer, learning_rate=rate)
            train = dataclasses.replace(config.train, method=split(method), optimizer=optimizer)
            yield Stage(
                name=f"{count} {method}",
                folder=arguments.run_dir / f"{number:02d}-{folder_name(method)}",
                config=dataclasses.replace(config, seed=config.seed + number, train=train),
            )


def run_rounds(arguments: RoundsArguments) -> dict[str, dict]:
    """Held-out results of the cold start and after every stage, by name."""
    go_on = cli.command("launch.rounds", arguments)
    start = arguments.run_dir / COLD_START
    with Session(arguments.config, start) as session:
        for method in arguments.methods:
            check_facts(make_method(split(method)), session.source)
        resume = has_checkpoint(start / "sft" / "checkpoints")
        params = run_sft(session, resume=resume, go_on=go_on)
        evaluator = Evaluator(session)
        check_gate(session, evaluator, params, go_on)
        results = {"cold start": _evaluate(evaluator, params)}
    for stage in stages(arguments):
        display.CONSOLE.print(f"round {stage.name}", **display.PLAIN)
        params, results[stage.name] = _run_stage(stage, params, go_on)
    return results


def _run_stage(stage: Stage, start: Params, go_on: str) -> tuple[Params, dict]:
    with Session(stage.config, stage.folder) as session:
        session.save_tokenizer()
        evaluator = Evaluator(session)
        resume = has_checkpoint(stage.folder / "train" / "checkpoints")
        params = run_training(session, start, evaluator, resume=resume, go_on=go_on)
        return params, _evaluate(evaluator, params)


def _evaluate(evaluator: Evaluator, params: Params) -> dict:
    return {mode: evaluator.final(params, mode)[0].record() for mode in MODES}


def table(results: dict[str, dict]) -> Table:
    """One row for each stage."""
    rendered = Table(title="held-out success after each stage")
    for column in ("round", *MODES):
        rendered.add_column(column)
    for name, found in results.items():
        rendered.add_row(name, *(f"{found[mode]['success']:.3f}" for mode in MODES))
    return rendered


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(RoundsArguments, argv, program="launch.rounds")
    cluster.start(arguments.cluster, arguments.distributed)
    results = run_rounds(arguments)
    if arguments.json is not None:
        cli.write_json(arguments.json, results)
    display.CONSOLE.print(table(results))


if __name__ == "__main__":
    cli.main(run)
