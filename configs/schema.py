"""The settings of a run: frozen dataclasses, every field an option of the command line."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, TypeVar

import tyro

from gtpo_jax import settings
from gtpo_jax.rollout import RolloutLimits
from gtpo_jax.settings import (
    AT_LEAST_1,
    DECAY,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Bounds,
    Change,
    Changeable,
    Extended,
    Rounded,
    Section,
)
from gtpo_jax.tools import ToolLimits, remote
from gtpo_jax.verifiers.kinds import KINDS
from models.config import ModelConfig

T = TypeVar("T")

EvaluatedOn = Annotated[
    T,
    Change(
        unless="task.drop_overlap",
        because="with task.drop_overlap it decides which problems are left to train on",
    ),
]
"""A setting of the problems that are held out."""

COMPARED = Bounds(
    least=2, why="advantages compare the trajectories of a group, and one is equal to itself"
)
GREEDY = Bounds(above=0, why="a greedy evaluation is made anyway")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Where problems come from."""

    families: tuple[str, ...] = ("arithmetic", "word", "remainder", "gcd", "branch", "chain")
    """Families of generated problems, `reasoning-gym/NAME` for those of that package; not used when
    `train_file` is set."""
    level: Annotated[int, AT_LEAST_1] = 1
    """Difficulty of generated problems: longer numbers, more operands, longer chains."""
    train_file: tuple[str, ...] = ()
    """Files of problems (.jsonl, .json, .parquet), or data sets as FOLDER[:CONFIG][:SPLIT], cached
    NAME[:CONFIG][:SPLIT], or hub:NAME[:CONFIG][:SPLIT]; only the last asks over the network."""
    eval_file: EvaluatedOn[str | None] = None
    """One such source to evaluate on; needed with `train_file`."""
    mapping: tuple[str, ...] = ("plain",)
    """How records become problems: one mapping for all training files, or one for each. `plain`
    reads `question`, `answer` and, for demonstrations, `expression`; others are named as their data
    sets are, gsm8k for one. `my.module:function` is one of your own, from a record to an `Entry` of
    `gtpo_jax.tasks.stream`."""
    fields: tuple[str, ...] = ()
    """Fields under other names in the training files, as question=Problem."""
    eval_mapping: EvaluatedOn[str | None] = None
    """That of `eval_file`; by default the same."""
    eval_fields: EvaluatedOn[tuple[str, ...] | None] = None
    """Those of `eval_file`; by default the same."""
    drop_overlap: bool = False
    """Training problems that are also evaluated on are left out, and counted, instead of refused.
    """
    other_numbers: Annotated[float, SHARE] = 0.0
    """Share of training problems with an `expression`, and of their demonstrations, that have other
    numbers than in the file, others in each epoch."""
    other_words: Annotated[float, SHARE] = 0.0
    """Share of those demonstrations that tell of other persons and things, now and then with a
    sentence beside the point, others in each epoch."""
    skip_tool: Annotated[float, SHARE] = 0.15
    """Share of demonstrations that answer without calling the tool."""
    unclosed_call: Annotated[float, SHARE] = 0.06
    """Share of demonstrated calls that lack the closing marker."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optax optimizer with linear warm-up and cosine decay."""

    kind: Literal["adam", "muon"] = "adam"
    """`muon` orthogonalizes the updates of layer matrices and uses Adam for the rest."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Peak, after warm-up."""
    warmup_steps: Annotated[int, NOT_NEGATIVE] = 5
    """Updates until the peak."""
    final_fraction: Annotated[float, SHARE] = 1.0
    """Learning rate at the end, as a fraction of the peak; 1 keeps it constant."""
    decay_steps: Annotated[
        int | None, AT_LEAST_1, Section(decides="the learning rate of the steps that are done")
    ] = None
    """Steps of the phase until that end; all of them without it. A phase that is made longer when
    it goes on keeps those that it began with."""
    b1: Annotated[float, DECAY] = 0.9
    """Decay of the first moment at every update."""
    b2: Annotated[float, DECAY] = 0.99
    """Decay of the second moment."""
    clip_norm: Annotated[float, POSITIVE] = 1.0
    """Largest global norm of a gradient."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """LoRA: low-rank adapters are trained beside a model that stays. Needs the extra `lora`."""

    rank: Annotated[int, NOT_NEGATIVE] = 0
    """0 trains all parameters."""
    alpha: Annotated[float, POSITIVE] = 32.0
    """What adapters add is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ()
    """Projections with adapters, such as q_proj; without names, all of attention and MLP."""

    def __post_init__(self):
        if self.rank == 0 and (self.alpha != 32.0 or self.targets):
            raise ValueError("lora.alpha and lora.targets need a lora.rank above 0; give one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Imitation of demonstrations, the cold start."""

    steps: Annotated[Extended[int], AT_LEAST_1] = 1200
    """Updates."""
    rows: Annotated[int, AT_LEAST_1] = 8
    """Packed rows of a batch."""
    row_tokens: Annotated[int, AT_LEAST_1] = 128
    """Tokens of a packed row; no demonstration may be longer."""
    files: tuple[str, ...] = ()
    """JSON lines of chats that are imitated, all of them; without one, scripts of the task are."""
    demonstrations: Annotated[int, AT_LEAST_1] = 18_000
    """Distinct demonstrations by scripts; they repeat when the steps need more."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """A demonstration longer than `row_tokens` is an error, or is left out and counted."""
    violations: bool = False
    """Files may hold turns that break a rule of the dialogue."""
    system_messages: Literal["same", "drop"] = "same"
    """Those of files have to be the run's, with which rollouts begin, or give way to it."""
    logprob_chunk: Annotated[Rounded[int | None], AT_LEAST_1] = None
    """Positions of a row whose logits are in memory at a time; all of them without it."""
    checkpoint_every: Annotated[Changeable[int], AT_LEAST_1] = 200
    """Steps between checkpoints."""
    optimizer: OptimizerConfig = OptimizerConfig(
        kind="muon", learning_rate=8e-3, warmup_steps=40, final_fraction=0.1, b2=0.99
    )

    def __post_init__(self):
        for name in ("violations", "system_messages"):
            if not self.files and getattr(self, name) != getattr(SftConfig, name):
                raise ValueError(
                    f"sft.{name} is for demonstrations in files; give sft.files, or leave it out"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Reinforcement learning with the tool."""

    steps: Annotated[Extended[int], AT_LEAST_1] = 100
    """Rollouts, each followed by its updates."""
    prompts: Annotated[int, AT_LEAST_1] = 16
    """Problems of a step."""
    group_size: Annotated[int, COMPARED] = 8
    """Trajectories of a problem."""
    temperature: Annotated[float, POSITIVE] = 1.0
    """Of sampling; log-probs are those at this temperature."""
    method: tuple[str, ...] = ("gtpo",)
    """A method with its options, and modifiers behind a `+`, as in `gtpo discount=.95 + kl
    weight=.01`; those of your own as `my.module:my_method scale=2`. `python -m launch.methods`
    lists them."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=6e-4, final_fraction=0.1)
    epochs: Annotated[int, AT_LEAST_1] = 1
    """Passes over the trajectories of a step."""
    minibatches: Annotated[int, AT_LEAST_1] = 2
    """Optimizer steps of a pass, among which the trajectories are divided."""
    rows: Annotated[Rounded[int], AT_LEAST_1] = 16
    """Packed rows, each of `row_tokens`, of a micro-batch."""
    row_tokens: Annotated[Rounded[int | None], AT_LEAST_1] = None
    """Tokens of a packed row, at least `rollout.context`, which it is without."""
    row_buckets: Annotated[Rounded[int], AT_LEAST_1] = 1
    """Lengths that rows may have: `row_tokens`, half of it with twice the rows, and so on. The
    shortest that holds the trajectories of a step is used; each is compiled once."""
    shared_prompts: bool = False
    """The trajectories of a group share its prompt, in rows that hold several of them: set
    `row_tokens` to a prompt and `group_size` times the rest. Minibatches are of whole groups."""
    logprob_chunk: Annotated[Rounded[int | None], AT_LEAST_1] = None
    """Positions of a row whose logits are in memory at a time; all of them without it."""
    eval_every: Annotated[Changeable[int], NOT_NEGATIVE] = 20
    """Steps between evaluations; 0 evaluates at the end only."""
    keep_every: Annotated[Changeable[int], NOT_NEGATIVE] = 10
    """Steps between those whose trajectories are kept, and the first and the last; 0 keeps none."""
    checkpoint_every: Annotated[Changeable[int], AT_LEAST_1] = 10
    """Steps between checkpoints."""
    gate: Annotated[Changeable[float], SHARE] = 0.9
    """Greedy success on plain arithmetic that a cold start must reach; 0 lets all pass."""

    def __post_init__(self):
        if self.shared_prompts and self.minibatches > self.prompts:
            raise ValueError(
                f"with shared_prompts a minibatch has whole groups, and {self.prompts} cannot be"
                f" divided among {self.minibatches}; lower minibatches or raise prompts"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is answered to say how good a policy is."""

    problems: Annotated[int, AT_LEAST_1] = 256
    """Held-out problems."""
    samples: Annotated[int, AT_LEAST_1] = 1
    """Trajectories of a problem in evaluations at the end, or by `launch.evaluate`; one meanwhile.
    """
    temperature: Annotated[float, GREEDY] = 1.0
    """Of their sampling; beside them stands a greedy one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis; −1 takes what the others leave."""

    data: int = -1
    """Rows are shared along it, parameters are not."""
    fsdp: int = 1
    """Rows and parameters are shared."""
    sequence: int = 1
    """Positions of the rows of a batch are shared, for long contexts; the rows of a rollout are."""
    tensor: int = 1
    """Heads, MLP, vocabulary and experts are shared, and rows are not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolConfig:
    """The Python tool."""

    running: Annotated[Changeable[int], AT_LEAST_1] = 2
    """Calls that run at a time."""
    preload: tuple[str, ...] = ("numpy", "sympy")
    """Packages that programs find imported already."""
    allow: Changeable[tuple[str, ...]] = ()
    """Protections that the host may lack; `python -m gtpo_jax.tools.doctor` names those it does."""
    limits: ToolLimits = dataclasses.field(default_factory=ToolLimits)
    remote: str = ""
    """URL of a sandbox server that runs the programs (SandboxFusion-compatible: `POST
    URL/run_code`). Empty: this machine runs them."""
    factory: str = ""
    """A tool of your own, as `my.module:make_tool`: a function without arguments that returns an
    object with `submit(code, *, timeout)` and `close()`."""

    def __post_init__(self):
        if self.factory:
            self._check_factory()
        if not self.remote:
            return
        ineffective = [f"tool.limits.{name}" for name in remote.ineffective(self.limits)]
        if self.preload not in ((), ToolConfig.preload):
            ineffective.append("tool.preload")
        if self.allow:
            ineffective.append("tool.allow")
        if ineffective:
            raise ValueError(
                f"tool.remote sends programs to a server, where {' and '.join(ineffective)} would"
                " have no effect; leave out one or the other"
            )

    def _check_factory(self) -> None:
        if ":" not in self.factory:
            raise ValueError(f"tool.factory must be as my.module:make_tool, got {self.factory!r}")
        given = {
            "tool.remote": self.remote != "",
            "tool.allow": self.allow != (),
            "tool.limits": self.limits != ToolLimits(),
        }
        ineffective = [name for name, there in given.items() if there]
        if ineffective:
            raise ValueError(
                f"tool.factory makes a tool of your own, on which {' and '.join(ineffective)} would"
                " have no effect; leave out one or the other"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DialogueConfig:
    """How turns, calls and outputs are written."""

    protocol: Literal["markers", "fenced", "tags", "hermes"] = "markers"
    """`markers`: the built-in dialogue. In the chat template of an imported model: blocks of
    Python, `<code>` tags, or `<tool_call>` in JSON."""
    system_prompt: str | None = None
    """That of a chat; without one, the protocol's."""
    most_calls: Annotated[int, AT_LEAST_1] = 1
    """Calls that one turn may hold."""
    template_variables: tuple[str, ...] = ()
    """Variables of the chat template, as in `enable_thinking=false`; values are JSON, or else
    text."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifierConfig:
    """How answers are judged; `docs/verifiers.md` says what each kind accepts."""

    kind: str = "numeric"
    """Verifier of the answers to problems that name none: numeric, exact, math, choice, unit_tests,
    reasoning-gym, or a function of your own as `my.module:function`, which takes a problem and an
    answer and returns True or False."""
    tolerance: Annotated[float, DECAY] = 1e-6
    """Relative error of a decimal that is not an error; integers have to be equal."""
    seconds: Annotated[Changeable[float], POSITIVE] = 10.0
    """Wall time of an answer to `math` or `reasoning-gym`; beyond it, it could not be verified."""
    workers: Annotated[Changeable[int], AT_LEAST_1] = 2
    """Processes of each of these two kinds, if there are such answers."""

    def __post_init__(self):
        if self.kind not in KINDS and ":" not in self.kind:
            raise ValueError(
                f"verifier.kind must be one of {', '.join(KINDS)}, or a function of your own as"
                f" my.module:function, got {self.kind!r}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a run, but for where it is written."""

    model: Annotated[ModelConfig, Section(decides="the parameters")]
    """Its shapes give way to those of an imported model (`launch.convert import`)."""
    tokenizer: Annotated[str, Section(decides="the tokens that are learned")] = "tools-256"
    """A shipped tokenizer by name, or the path of a SentencePiece model; an imported model brings
    its own."""
    dialogue: Annotated[DialogueConfig, Section(decides="the turns that are learned")] = (
        DialogueConfig()
    )
    lora: Annotated[AdapterConfig, Section(decides="the parameters that are trained")] = (
        AdapterConfig()
    )
    seed: Annotated[int, Section(decides="problems, samples and batches")] = 0
    """Of parameters, problems and samples; equal seeds give equal runs."""
    task: Annotated[TaskConfig, Section(decides="the problems")] = TaskConfig()
    sft: Annotated[SftConfig, Section(decides="what is imitated and how", phase="sft")] = (
        SftConfig()
    )
    train: Annotated[TrainConfig, Section(decides="how the policy learns", phase="train")] = (
        TrainConfig()
    )
    rollout: Annotated[RolloutLimits, Section(decides="what a trajectory may be")] = (
        dataclasses.field(default_factory=RolloutLimits)
    )
    tool: Annotated[ToolConfig, Section(decides="what programs give")] = ToolConfig()
    verifier: Annotated[VerifierConfig, Section(decides="what is rewarded")] = VerifierConfig()
    evaluation: Changeable[EvalConfig] = EvalConfig()
    wandb: Changeable[str] = ""
    """Project of Weights & Biases that figures also go to; without one they stay with the run."""
    mesh: Changeable[MeshConfig] = MeshConfig()
    preset: tyro.conf.SuppressFixed[tyro.conf.Fixed[Changeable[str]]] = ""
    """Name of the preset that the run began with."""

    def __post_init__(self):
        settings.check_bounds(self)
