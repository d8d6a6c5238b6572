"""Plans a run for other machines: whether it fits, how fast it can be, and what it costs.

python -m launch.plan chat --model-preset qwen2.5-7b --mesh.fsdp 64 --train.rows 64 \\
    --topology v5p:4x4x4 --price 4.2

The update, the decode segment and the prefill are compiled by the real compiler for the topology.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import jax
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from configs.methods import make_method
from configs.problems import make_source
from configs.schema import RunConfig
from configs.training import check_facts
from launch import cli
from launch.planning import estimate, report, search, topologies
from launch.planning.estimate import GIB, DoesNotFitError, Report
from launch.planning.programs import Workload
from launch.run import display, imported_model
from launch.run.display import CONSOLE
from models import presets
from models.config import ModelConfig
from models.hf import config as hf_config

EXIT_DOES_NOT_FIT = 3
DEFAULT_TOPOLOGY = "cpu:8"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanArguments(cli.Arguments):
    """Memory, shortest time and cost of a run, from its programs compiled for other machines."""

    topology: str = DEFAULT_TOPOLOGY
    """Chips and their grid, such as v5p:4x4x4, v5e:4x4, v6e:4x8, tpu7x:2x2x1; or fake devices
    (cpu:8)."""
    model_preset: str | None = None
    """Published model, such as qwen2.5-7b, in place of the preset's."""
    model: pathlib.Path | None = None
    """Folder with the config.json of a model, in place of the preset's."""
    price: float | None = None
    """Price of one chip for one hour, in any currency."""
    trajectory_tokens: int | None = None
    """Mean length of a trajectory, in tokens. None: `rollout.context`."""
    sampled_tokens: int | None = None
    """Mean number of tokens per trajectory that the policy writes. None: as many as fit."""
    tries: int = 8
    """Number of changes to try (each compiles programs) when the run does not fit. 0 tries none."""
    json: pathlib.Path | None = None
    """Also write the plan to this JSON file."""

    def workload(self, config: RunConfig) -> Workload:
        """Mean lengths of trajectories; by default the longest possible."""
        longest = Workload.longest(config)
        trajectory = self.trajectory_tokens or longest.trajectory
        most = max(trajectory - config.rollout.prompt_tokens, 1)
        return Workload(
            trajectory=trajectory,
            sampled=self.sampled_tokens or min(longest.sampled, most),
        )


def choose_model(arguments: PlanArguments) -> RunConfig:
    """The config with the model that the arguments name. Settings of how the model is computed are
    kept.
    """
    config = arguments.config
    if arguments.model is not None and arguments.model_preset is not None:
        raise ValueError("--model and --model-preset name two models; give one")
    model: ModelConfig | None = None
    if arguments.model_preset is not None:
        model = presets.MODELS.get(arguments.model_preset)
        if model is None:
            raise ValueError(
                f"model preset {arguments.model_preset!r} is unknown; the known ones are"
                f" {', '.join(presets.MODELS)}"
            )
    elif arguments.model is not None:
        path = arguments.model / "config.json"
        try:
            model = hf_config.from_hf(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
    if model is None:
        return config
    chosen = {name: getattr(config.model, name) for name in imported_model.CHOSEN}
    return dataclasses.replace(config, model=dataclasses.replace(model, **chosen))


def run(argv: Sequence[str]) -> None:
    arguments = cli.parse(PlanArguments, argv, program="launch.plan")
    # Before JAX looks for devices: a plan needs none, and must not take those of a run.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
    config = choose_model(arguments)
    # Files of problems may be on the machines of the run only.
    source = None if config.task.train_file else make_source(config)
    check_facts(make_method(config.train.method), source)
    topology = topologies.find(arguments.topology)
    if arguments.topology == DEFAULT_TOPOLOGY:
        CONSOLE.print(
            f"the plan is for {DEFAULT_TOPOLOGY}, fake devices without times; --topology names"
            " chips, such as v5p:4x4x4",
            highlight=False,
            soft_wrap=True,
        )
    with _progress() as bar, contextlib.ExitStack() as waits:
        task = bar.add_task("", total=None)

        def tell(program: str) -> None:
            bar.update(task, description=f"compiling the {program}")
            if not CONSOLE.is_terminal:
                waits.close()
                CONSOLE.print(f"compiling the {program}", highlight=False)
                waits.enter_context(display.working(f"compiling the {program}"))

        planner = search.Planner(topology, arguments.workload, tell)
        try:
            reports, failure = planner.reports(config), None
        except DoesNotFitError as error:
            reports, failure = None, error
            show_refusal(error)
            last = None
            for last in planner.search(config, error, arguments.tries):
                show_try(last)
            if last is not None and last.failure is None:
                config = search.apply(config, last.changes)
                reports = planner.reports(config)
                CONSOLE.print(f"it fits with {search.as_options(last.changes)}", style="bold green")
    if reports is not None:
        show(arguments, config, topology, reports)
    if failure is None:
        return
    if reports is None:
        CONSOLE.print(
            "nothing that was tried fits; take more chips, a shorter rollout.context or adapters"
            " (--lora.rank 16)",
            style="bold red",
        )
    raise SystemExit(EXIT_DOES_NOT_FIT)


def show(
    arguments: PlanArguments,
    config: RunConfig,
    topology: topologies.Topology,
    reports: Sequence[Report],
) -> None:
    """Prints a plan that fits, and writes it to the file that the arguments name."""
    workload, step = arguments.workload(config), None
    CONSOLE.print(report.memory_table(reports, topology))
    CONSOLE.print(report.cost_table(reports))
    if topology.chip:
        CONSOLE.print(report.time_table(reports))
    CONSOLE.print(report.traffic_table(reports))
    for one in reports:
        for kernel in one.cost.unknown:
            CONSOLE.print(f"{one.name}: the operations of kernel {kernel} are not counted")
        if one.cost.guessed:
            CONSOLE.print(f"{one.name}: a loop of unknown length is counted once")
    if topology.chip:
        step = estimate.step(config, topology, workload, reports)
        for line in report.step_lines(step, topology, arguments.price):
            CONSOLE.print(line, highlight=False)
    if arguments.json is not None:
        cli.write_json(arguments.json, report.record(reports, topology, step, arguments.price))


def show_refusal(failure: DoesNotFitError) -> None:
    """Prints what does not fit, with the compiler's own words."""
    CONSOLE.print(str(failure), style="bold red", highlight=False)
    if failure.told:
        CONSOLE.print(f"the compiler: {failure.told}", markup=False, highlight=False)


def show_try(tried: search.Try) -> None:
    """Prints one line about a tried change."""
    options, failure = search.as_options(tried.changes), tried.failure
    outcome = "fits"
    if failure is not None:
        missing = (failure.needed - failure.available) / GIB
        outcome = f"{failure.program} lacks {missing:.2f} GiB"
    CONSOLE.print(f"  {options}: {outcome}", markup=False, highlight=False)


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=CONSOLE,
        transient=True,
        disable=not CONSOLE.is_terminal,
    )


if __name__ == "__main__":
    cli.main(run)
