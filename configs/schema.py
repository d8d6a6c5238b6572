"""The settings of a run: frozen dataclasses, every field an option of the command line."""

from __future__ import annotations

import dataclasses
from typing import Literal

from gtpo_jax.rollout import RolloutLimits
from gtpo_jax.tools import ToolLimits
from models.config import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Where problems come from."""

    families: tuple[str, ...] = ("arithmetic", "word", "remainder", "gcd", "branch", "chain")
    """Families of generated problems; not used when `train_file` is set."""
    train_file: str | None = None
    """JSON lines with `question`, `answer` and, for demonstrations, `expression`."""
    eval_file: str | None = None
    """JSON lines to evaluate on; needed with `train_file`."""
    skip_tool: float = 0.15
    """Share of demonstrations that answer without calling the tool."""
    unclosed_call: float = 0.06
    """Share of demonstrated calls that lack the closing marker."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optax optimizer with linear warm-up and cosine decay."""

    kind: Literal["adam", "muon"] = "adam"
    """`muon` orthogonalizes the updates of layer matrices and uses Adam for the rest."""
    learning_rate: float = 1e-3
    """Peak, after warm-up."""
    warmup_steps: int = 5
    final_fraction: float = 1.0
    """Learning rate at the end, as a fraction of the peak; 1 keeps it constant."""
    b1: float = 0.9
    b2: float = 0.99
    clip_norm: float = 1.0
    """Largest global norm of a gradient."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """LoRA: low-rank adapters are trained beside a model that stays. Needs the extra `lora`."""

    rank: int = 0
    """0 trains all parameters."""
    alpha: float = 32.0
    """What adapters add is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ()
    """Projections with adapters, such as q_proj; without names, all of attention and MLP."""

    def __post_init__(self):
        if self.rank < 0:
            raise ValueError(f"lora.rank must be 0 or more, got {self.rank}; 0 trains all")
        if self.rank == 0 and (self.alpha != 32.0 or self.targets):
            raise ValueError("lora.alpha and lora.targets need a lora.rank above 0; give one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Imitation of demonstrations, the cold start."""

    steps: int = 1200
    rows: int = 8
    """Packed rows of a batch."""
    row_tokens: int = 128
    demonstrations: int = 18_000
    """Distinct demonstrations; they repeat when the steps need more."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    optimizer: OptimizerConfig = OptimizerConfig(
        kind="muon", learning_rate=8e-3, warmup_steps=40, final_fraction=0.1, b2=0.99
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """Credit and objective. An option that the algorithm does not use is an error."""

    name: Literal["gtpo", "grpo"] = "gtpo"
    discount: float = 0.9
    """Discount per turn (GTPO)."""
    shaping: float = 0.5
    """Largest partial credit of a failure (GTPO)."""
    format_penalty: float = 0.1
    """Reward taken from a badly formed turn (GTPO)."""
    clip_low: float = 0.2
    clip_high: float = 0.28


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Reinforcement learning with the tool."""

    steps: int = 100
    prompts: int = 16
    """Problems of a step."""
    group_size: int = 8
    """Trajectories of a problem."""
    sampling_rounds: int = 1
    """Most rollouts of a step: further problems replace groups of equal outcomes; 1 keeps all."""
    temperature: float = 1.0
    algorithm: AlgorithmConfig = AlgorithmConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=6e-4, final_fraction=0.1)
    minibatches: int = 2
    """Optimizer steps that the trajectories of a step are divided among."""
    rows: int = 16
    """Packed rows, each of `rollout.context` tokens, of a micro-batch."""
    logprob_chunk: int | None = None
    """Positions of a row whose logits are in memory at a time; all of them without it."""
    eval_every: int = 20
    """Steps between evaluations; 0 evaluates at the end only."""
    checkpoint_every: int = 10
    """Steps between checkpoints."""
    gate: float = 0.9
    """Greedy success on plain arithmetic that a cold start must reach; 0 lets all pass."""

    def __post_init__(self):
        if self.sampling_rounds < 1:
            raise ValueError(
                f"sampling_rounds must be at least 1, got {self.sampling_rounds};"
                " 1 keeps all groups"
            )
        if self.sampling_rounds > 1 and self.group_size < 2:
            raise ValueError(
                f"sampling_rounds {self.sampling_rounds} needs a group_size of at least 2, got"
                f" {self.group_size}: the outcome of one trajectory is equal to itself; raise"
                " group_size, or set sampling_rounds to 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    problems: int = 256
    """Held-out problems."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis; −1 takes what the others leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolConfig:
    """The Python tool."""

    running: int = 2
    """Calls that run at a time."""
    preload: tuple[str, ...] = ("numpy", "sympy")
    """Packages that programs find imported already."""
    allow: tuple[str, ...] = ()
    """Protections that the host may lack; `python -m gtpo_jax.tools.doctor` names those it does."""
    limits: ToolLimits = dataclasses.field(default_factory=ToolLimits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DialogueConfig:
    """How turns, calls and outputs are written."""

    protocol: Literal["markers", "fenced", "tags", "hermes"] = "markers"
    """`markers`: the built-in dialogue. In the chat template of an imported model: blocks of
    Python, `<code>` tags, or `<tool_call>` in JSON."""
    system_prompt: str | None = None
    """That of a chat; without one, the protocol's."""
    most_calls: int = 1
    """Calls that one turn may hold."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a run, but for where it is written."""

    model: ModelConfig
    """Its shapes give way to those of an imported model (`launch.convert import`)."""
    tokenizer: str = "tools-256"
    """A shipped tokenizer by name, or the path of a SentencePiece model; an imported model brings
    its own."""
    dialogue: DialogueConfig = DialogueConfig()
    lora: AdapterConfig = AdapterConfig()
    seed: int = 0
    task: TaskConfig = TaskConfig()
    sft: SftConfig = SftConfig()
    train: TrainConfig = TrainConfig()
    rollout: RolloutLimits = dataclasses.field(default_factory=RolloutLimits)
    tool: ToolConfig = ToolConfig()
    evaluation: EvalConfig = EvalConfig()
    mesh: MeshConfig = MeshConfig()
