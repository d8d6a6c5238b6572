"""Tokens per second of one update of the learner, compared with TRL and Tunix.

python -m benchmarks.update --json figures.json --peer-python /path/with/trl /path/with/tunix

An update is forward, clipped loss, backward, clipping of the gradient, and Adam, in float32 and
without a reference model. All start from the same weights of a small Qwen2 and learn from the same
trajectories of several turns; their first losses and gradients have to agree. Then they run
interleaved, and a figure is a ratio of medians over the rounds, after one round of warm-up. The
bars are on wall time; all use every processor. CPU seconds are those of the whole process with all
its threads. A missing peer stays unmeasured.

Tokens are those of the trajectories, without padding. We pack trajectories into rows; TRL and Tunix
pad each to the longest, their default. With equal lengths there is no padding, so the remaining
ratio is not due to packing. TRL trains with gradient checkpointing by default; the bar is on
training without it, since we keep activations too. It recomputes logits in either case.

On a GPU the model FLOPs of an update of a published shape in bfloat16 are compared with the peak
instead; nothing else is measured there.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import jax

from benchmarks import update_fixture as fixture
from benchmarks.figures import Figure
from benchmarks.measure import CORES, Cost, load, median_costs, run_benchmark
from benchmarks.peers import Worker, check_interpreters, workers_of
from launch import cli
from models.config import ModelConfig
from models.hf import export as hf_export
from models.presets import MODELS

PEER_BARS = {"trl": 1.5, "trl, gradient checkpointing": None, "tunix": 1.3}
CASES = {"": False, ", equal lengths": True}  # suffix of the figures' names → equal lengths


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpdateArguments:
    """One update of the learner: tokens per second compared with peers; on a GPU, its MFU."""

    rounds: int = 5
    """Number of measuring rounds."""
    width: int = 256
    """Width of the model; it has 4 heads, and its MLP is four times as wide."""
    layers: int = 4
    """Layers of the model."""
    vocab_size: int = 4096
    """Rows of the model's embedding."""
    trajectories: int = 16
    """Trajectories per update."""
    context: int = 512
    """Tokens of the longest trajectory, and of our rows."""
    rows: int = 2
    """Packed rows in our micro-batches."""
    peer_rows: int = 4
    """Trajectories in TRL's micro-batches; Tunix has a single one."""
    peer_python: tuple[pathlib.Path, ...] = ()
    """Python interpreters with TRL or with Tunix."""
    model_preset: str = "qwen2.5-1.5b"
    """Model preset whose MFU is measured, on a GPU."""
    preset_context: int = 4096
    """Tokens per trajectory of the preset's update."""
    preset_trajectories: int = 16
    """Trajectories of the preset's update."""
    preset_rows: int = 4
    """Trajectories per micro-batch of the preset's update."""
    json: pathlib.Path | None = None
    """Also write the figures to this JSON file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The seconds of one update, and its loss and gradient norm."""

    wall: float
    cpu: float  # CPU seconds of the process, all threads
    loss: float
    norm: float  # norm of the gradient before clipping


Runner = Callable[[], Outcome]


def run_theirs(worker: Worker, peer: str) -> Outcome:
    return Outcome(**worker.ask(peer))


def run_ours(packed: fixture.Packed) -> Outcome:
    wall, cpu = time.perf_counter(), time.process_time()
    metrics = packed.run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Outcome(
        wall=wall, cpu=cpu, loss=float(metrics["loss"]), norm=float(metrics["grad_norm"])
    )


def peer_options(arguments: UpdateArguments, config: ModelConfig) -> dict[str, float]:
    optimizer = fixture.OPTIMIZER
    return {
        "threads": CORES,
        "peer_rows": arguments.peer_rows,
        "learning_rate": optimizer.learning_rate,
        "b1": optimizer.b1,
        "b2": optimizer.b2,
        "clip_norm": optimizer.clip_norm,
        "clip_low": fixture.CLIP_LOW,
        "clip_high": fixture.CLIP_HIGH,
        "rope_theta": config.rope_theta,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A batch, and the results of all on it."""

    batch: fixture.Batch
    positions: int  # positions that ours computes
    costs: dict[str, Cost]
    loss_gap: float | None  # largest difference of a peer's loss from ours
    norm_gap: float | None  # relative
    versions: list[str]


def measure_case(arguments: UpdateArguments, config: ModelConfig, *, equal: bool) -> Measured:
    """Compares the first update of all, then measures the rounds."""
    params = fixture.init_params(config)
    batch = fixture.make_batch(
        count=arguments.trajectories,
        context=arguments.context,
        vocab_size=config.vocab_size,
        equal=equal,
    )
    packed = fixture.ours(config, params, batch, rows=arguments.rows, row_length=arguments.context)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        if arguments.peer_python:
            hf_export.save_checkpoint(folder / "checkpoint", config, params)
            fixture.write_padded(folder / "batch.npz", batch)
        options = peer_options(arguments, config)
        failure = "--peer-python cannot run its peer; it needs TRL, or Tunix"
        worker = ("update_peers.py", str(folder), json.dumps(options))
        with workers_of(arguments.peer_python, *worker, failure=failure) as peers:
            first = run_ours(packed)
            others = [run_theirs(here, here.names[0]) for here in peers]
            runners: dict[str, Runner] = {"ours": functools.partial(run_ours, packed)} | {
                name: functools.partial(run_theirs, here, name)
                for here in peers
                for name in here.names
            }

            def cost(run: Runner) -> Cost:
                outcome = run()
                return Cost(wall=outcome.wall, cpu=outcome.cpu, tokens=batch.tokens)

            costs = median_costs(
                {name: functools.partial(cost, run) for name, run in runners.items()},
                arguments.rounds,
            )
    return Measured(
        batch=batch,
        positions=packed.positions,
        costs=costs,
        loss_gap=max((abs(o.loss - first.loss) for o in others), default=None),
        norm_gap=max((abs(o.norm / first.norm - 1) for o in others), default=None),
        versions=[f"{here.names[0]} {here.found['version']}" for here in peers],
    )


def case_figures(name: str, case: Measured | None, *, bars: bool) -> dict[str, Figure]:
    """Figures of ours, and of ours over the peers'; `bars` are on wall time."""
    costs = {} if case is None else case.costs
    ours = costs.get("ours")
    kinds = {"wall": ("wall", "tokens/s"), "cpu": ("CPU", "tokens/CPU-s")}
    figures = {
        f"update, ours, by {kind} time{name}": Figure(
            value=ours and ours.tokens / getattr(ours, field), unit=unit
        )
        for field, (kind, unit) in kinds.items()
    }
    for peer, bar in PEER_BARS.items():
        for field, (kind, _) in kinds.items():
            theirs = costs.get(peer)
            figures[f"update, ours / {peer}, by {kind} time{name}"] = Figure(
                value=theirs and ours and getattr(theirs, field) / getattr(ours, field),
                unit="ratio",
                at_least=bar if bars and field == "wall" else None,
            )
    return figures


def share_figures(name: str, case: Measured | None, rows: int, context: int) -> dict[str, Figure]:
    """Shares of padding in what is computed."""
    tokens = case and case.batch.tokens
    return {
        f"padding, ours{name}": Figure(
            value=case and tokens and 1 - tokens / case.positions, unit="share of positions"
        ),
        f"padding, each to the longest{name}": Figure(
            value=tokens and 1 - tokens / (rows * context), unit="share of positions"
        ),
    }


def gap_figures(cases: Sequence[Measured | None]) -> dict[str, Figure]:
    """Largest differences of peers from ours in the first update."""

    def largest(field: str) -> float | None:
        gaps = [getattr(case, field) for case in cases if case is not None]
        return max((gap for gap in gaps if gap is not None), default=None)

    return {
        "difference of the first losses": Figure(
            value=largest("loss_gap"), unit="nats", at_most=1e-4
        ),
        "difference of the first gradient norms": Figure(
            value=largest("norm_gap"), unit="of ours", at_most=1e-3
        ),
    }


def preset_config(name: str) -> ModelConfig:
    if name not in MODELS:
        raise ValueError(f"--model-preset must be one of {', '.join(MODELS)}, got {name}")
    return dataclasses.replace(
        MODELS[name], param_dtype="bfloat16", compute_dtype="bfloat16", remat="none"
    )


def preset_mfu(arguments: UpdateArguments, config: ModelConfig) -> tuple[float, str]:
    """The MFU of full rows on this device, and the device's name."""
    batch = fixture.make_batch(
        count=arguments.preset_trajectories,
        context=arguments.preset_context,
        vocab_size=config.vocab_size,
        equal=True,
    )
    packed = fixture.ours(
        config,
        fixture.init_params(config),
        batch,
        rows=arguments.preset_rows,
        row_length=arguments.preset_context,
        chunk=512,  # logits of all positions would not fit into memory
    )
    device = jax.devices()[0].device_kind
    seconds = [run_ours(packed).wall for _ in range(arguments.rounds + 1)][1:]
    lengths = [trajectory.length for trajectory in batch.trajectories]
    utilization = fixture.mfu(config, lengths, seconds=statistics.median(seconds), device=device)
    return utilization, device


def measure(arguments: UpdateArguments) -> tuple[dict[str, Figure], list[str]]:
    """All figures, and lines that explain how they were measured."""
    check_interpreters(arguments.peer_python)
    before = load()
    on_gpu = jax.default_backend() == "gpu"
    preset = preset_config(arguments.model_preset)
    config = fixture.model_config(
        vocab_size=arguments.vocab_size, width=arguments.width, layers=arguments.layers
    )
    cases: dict[str, Measured | None] = {
        name: None if on_gpu else measure_case(arguments, config, equal=equal)
        for name, equal in CASES.items()
    }
    figures: dict[str, Figure] = {}
    for name, case in cases.items():
        figures |= case_figures(name, case, bars=not CASES[name])
        figures |= share_figures(name, case, arguments.trajectories, arguments.context)
    figures |= gap_figures([*cases.values()])
    found, device = preset_mfu(arguments, preset) if on_gpu else (None, "no GPU")
    figures[f"MFU, {arguments.model_preset}"] = Figure(
        value=found, unit="of the peak", at_least=0.45
    )
    notes = [
        f"{CORES} processors, load {before} before; {device}; jax {jax.__version__}; medians of"
        f" {arguments.rounds} interleaved rounds",
        f"{config.parameters:,} parameters: {config.layers} layers × {config.width}, vocabulary"
        f" {config.vocab_size}, float32; {arguments.trajectories} trajectories of at most"
        f" {arguments.context} tokens; micro-batches: {arguments.rows} packed rows,"
        f" {arguments.peer_rows} padded trajectories (TRL), all (Tunix)",
    ]
    for name, case in cases.items():
        if case is not None:
            notes.append(
                f"{name.lstrip(', ') or 'unequal lengths'}: {case.batch.tokens:,} tokens,"
                f" {case.batch.trained:,} trained; peers: {', '.join(case.versions) or 'none'}"
            )
    return figures, notes


def run(argv: Sequence[str]) -> None:
    run_benchmark(UpdateArguments, measure, argv, "benchmarks.update")


if __name__ == "__main__":
    cli.main(run)
