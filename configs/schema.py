"""The settings of a run: frozen dataclasses; every field is an option of the command line."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, TypeVar

import tyro

from gtpo_jax import settings
from gtpo_jax.decoding.diffusion import Canvas
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
"""A setting of the held-out problems."""

COMPARED = Bounds(
    least=2, why="advantages compare the trajectories of a group, and one is equal to itself"
)
GREEDY = Bounds(above=0, why="a greedy evaluation is made anyway")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The problems of a run."""

    families: tuple[str, ...] = ("arithmetic", "word", "remainder", "gcd", "branch", "chain")
    """Families of generated problems; `reasoning-gym/NAME` takes one of that package. Not used when
    `train_file` is set."""
    level: Annotated[int, AT_LEAST_1] = 1
    """Difficulty of generated problems, from 1: longer numbers, more operands, longer chains."""
    train_file: tuple[str, ...] = ()
    """Training problems: files (.jsonl, .json, .parquet) or data sets as FOLDER[:CONFIG][:SPLIT],
    cached NAME[:CONFIG][:SPLIT], or hub:NAME[:CONFIG][:SPLIT]; only the last uses the network."""
    eval_file: EvaluatedOn[str | None] = None
    """Evaluation problems: one file or data set, named as in `train_file`. Required with
    `train_file`."""
    mapping: tuple[str, ...] = ("plain",)
    """How records become problems: one mapping for all training files, or one per file. `plain`
    reads `question`, `answer` and, for demonstrations, `expression`; other mappings bear the name
    of their data set, such as gsm8k. `my.module:function` names a function of your own, from a
    record to an `Entry` of `gtpo_jax.tasks.stream`."""
    fields: tuple[str, ...] = ()
    """Names of fields in the training files where they differ, as question=Problem."""
    eval_mapping: EvaluatedOn[str | None] = None
    """Mapping of `eval_file`; by default the one of the training files."""
    eval_fields: EvaluatedOn[tuple[str, ...] | None] = None
    """Names of fields in `eval_file`; by default those of the training files."""
    drop_overlap: bool = False
    """Leave out, and count, the training problems that are also evaluation problems. Without it
    such problems are an error."""
    other_numbers: Annotated[float, SHARE] = 0.0
    """Share of training problems with an `expression`, and of their demonstrations, whose numbers
    are replaced, differently in each epoch."""
    other_words: Annotated[float, SHARE] = 0.0
    """Share of those demonstrations whose people and things are replaced, differently in each
    epoch; some also get an irrelevant sentence."""
    skip_tool: Annotated[float, SHARE] = 0.15
    """Share of demonstrations that answer without calling the tool."""
    unclosed_call: Annotated[float, SHARE] = 0.06
    """Share of demonstrated calls that lack the closing marker."""
    slip: Annotated[float, SHARE] = 0.3
    """Share of demonstrations of an `expression` that use a wrong operator or swap its operands."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optax optimizer with linear warm-up and cosine decay."""

    kind: Literal["adam", "muon"] = "adam"
    """Optimizer. `muon` orthogonalizes the updates of layer matrices and uses Adam for the rest."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Peak learning rate, reached after warm-up."""
    warmup_steps: Annotated[int, NOT_NEGATIVE] = 5
    """Length of the linear warm-up, in updates."""
    final_fraction: Annotated[float, SHARE] = 1.0
    """Learning rate at the end of the decay, as a fraction of the peak. 1 keeps it constant."""
    decay_steps: Annotated[
        int | None, AT_LEAST_1, Section(decides="the learning rate of the steps that are done")
    ] = None
    """Length of the decay, in steps of the phase. None: all steps; a phase that is extended on
    resume keeps the length it began with."""
    b1: Annotated[float, DECAY] = 0.9
    """Decay rate of the first moment per update."""
    b2: Annotated[float, DECAY] = 0.99
    """Decay rate of the second moment per update."""
    clip_norm: Annotated[float, POSITIVE] = 1.0
    """Gradients are scaled down to this global norm."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """LoRA: trains low-rank adapters and freezes the model's parameters. Needs the extra `lora`."""

    rank: Annotated[int, NOT_NEGATIVE] = 0
    """Rank of the adapters. 0 turns LoRA off and trains all parameters."""
    alpha: Annotated[float, POSITIVE] = 32.0
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ()
    """Projections that get adapters, such as q_proj. Empty: all of attention and MLP."""

    def __post_init__(self):
        if self.rank == 0 and (self.alpha != 32.0 or self.targets):
            raise ValueError("lora.alpha and lora.targets need a lora.rank above 0; give one")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Cold start: supervised fine-tuning on demonstrations."""

    steps: Annotated[Extended[int], AT_LEAST_1] = 1200
    """Number of steps, one update each."""
    rows: Annotated[int, AT_LEAST_1] = 8
    """Packed rows per batch."""
    row_tokens: Annotated[int, AT_LEAST_1] = 128
    """Tokens per packed row, the longest demonstration allowed."""
    files: tuple[str, ...] = ()
    """Demonstrations: files of chats as JSON lines, all of which are used. Empty: the task
    generates scripted demonstrations."""
    demonstrations: Annotated[int, AT_LEAST_1] = 18_000
    """Number of distinct scripted demonstrations; they repeat when the steps need more."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """Demonstrations longer than `row_tokens`: an error (refuse), or left out and counted (drop).
    """
    violations: bool = False
    """Allow turns in `files` that break a rule of the dialogue."""
    system_messages: Literal["same", "drop"] = "same"
    """System messages in `files`: they must equal the run's, with which rollouts begin (same), or
    are replaced by it (drop)."""
    thought_dropout: Annotated[float, SHARE] = 0.0
    """Share of demonstrations whose thoughts are emptied (TON, which takes 0.5): what stands in
    `<think>` marks, or the text before a call or a scripted answer."""
    logprob_chunk: Annotated[Rounded[int | None], AT_LEAST_1] = None
    """Number of positions per row whose logits are held in memory at once. None: all."""
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
    """Number of steps, each a rollout followed by its updates."""
    prompts: Annotated[int, AT_LEAST_1] = 16
    """Problems per step."""
    group_size: Annotated[int, COMPARED] = 8
    """Trajectories per problem, on average if the method divides them unequally."""
    pool: Annotated[int | None, AT_LEAST_1] = None
    """Train on the first `pool` different problems only. Methods that choose among problems by
    their success need a known number of them, and generated problems have no end. None: all
    problems of the source."""
    temperature: Annotated[float, POSITIVE] = 1.0
    """Sampling temperature of rollouts; log-probs are computed at this temperature."""
    method: tuple[str, ...] = ("gtpo",)
    """The method with its options, then modifiers, each after a `+`: `gtpo discount=.95 + kl
    weight=.01`. A method of your own is `my.module:my_method scale=2`. `python -m launch.methods`
    lists all of them."""
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=6e-4, final_fraction=0.1)
    epochs: Annotated[int, AT_LEAST_1] = 1
    """Passes over the trajectories of a step."""
    minibatches: Annotated[int, AT_LEAST_1] = 2
    """Minibatches per pass: the trajectories are divided among them, with one optimizer update
    each."""
    rows: Annotated[Rounded[int], AT_LEAST_1] = 16
    """Packed rows per micro-batch."""
    row_tokens: Annotated[Rounded[int | None], AT_LEAST_1] = None
    """Tokens per packed row, at least `rollout.context`. None: `rollout.context`."""
    row_buckets: Annotated[Rounded[int], AT_LEAST_1] = 1
    """Number of row lengths (buckets): `row_tokens`, half of it with twice the rows, and so on.
    Each step uses the shortest that fits its trajectories; each bucket is compiled once. 1: only
    `row_tokens`."""
    shared_prompts: bool = False
    """Let the trajectories of a group share one copy of their prompt in a row that holds several of
    them: set `row_tokens` to one prompt plus `group_size` times the rest. Minibatches then consist
    of whole groups."""
    logprob_chunk: Annotated[Rounded[int | None], AT_LEAST_1] = None
    """Number of positions per row whose logits are held in memory at once. None: all."""
    eval_every: Annotated[Changeable[int], NOT_NEGATIVE] = 20
    """Steps between evaluations. 0: only after the last step."""
    keep_every: Annotated[Changeable[int], NOT_NEGATIVE] = 10
    """Steps between those whose trajectories are saved; the first and the last step are saved as
    well. 0 saves none."""
    checkpoint_every: Annotated[Changeable[int], AT_LEAST_1] = 10
    """Steps between checkpoints."""
    gate: Annotated[Changeable[float], SHARE] = 0.9
    """Greedy success on plain arithmetic that the cold start must reach, from 0 to 1. 0 turns the
    check off."""

    def __post_init__(self):
        if self.shared_prompts and self.minibatches > self.prompts:
            raise ValueError(
                f"with shared_prompts a minibatch has whole groups, and {self.prompts} cannot be"
                f" divided among {self.minibatches}; lower minibatches or raise prompts"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a policy is evaluated."""

    problems: Annotated[int, AT_LEAST_1] = 256
    """Number of held-out problems."""
    samples: Annotated[int, AT_LEAST_1] = 1
    """Trajectories per problem in final evaluations and in `launch.evaluate`. Evaluations during
    training sample one."""
    temperature: Annotated[float, GREEDY] = 1.0
    """Sampling temperature of evaluations. A greedy evaluation is always made as well."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Number of devices along each mesh axis. −1 takes all remaining devices."""

    data: int = -1
    """Data parallelism: rows are sharded, parameters are replicated."""
    fsdp: int = 1
    """Fully sharded data parallelism: rows and parameters are sharded."""
    sequence: int = 1
    """Sequence parallelism for long contexts: positions of batch rows are sharded. In rollouts,
    rows are."""
    tensor: int = 1
    """Tensor parallelism: heads, MLP, vocabulary and experts are sharded, rows are not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolConfig:
    """The Python tool."""

    running: Annotated[Changeable[int], AT_LEAST_1] = 2
    """Number of calls that run at once."""
    preload: tuple[str, ...] = ("numpy", "sympy")
    """Packages that are imported before programs start."""
    allow: Changeable[tuple[str, ...]] = ()
    """Protections that this machine may lack; `python -m gtpo_jax.tools.doctor` names those it
    lacks."""
    limits: ToolLimits = dataclasses.field(default_factory=ToolLimits)
    remote: str = ""
    """URL of a sandbox server that runs the programs (SandboxFusion-compatible: `POST
    URL/run_code`). Empty: this machine runs them."""
    factory: str = ""
    """A tool of your own, as `my.module:make_tool`: a function without arguments that returns an
    object with `submit(code, *, timeout)` and `close()`. Empty: the Python tool."""

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
    """How turns, calls and tool outputs are written."""

    protocol: Literal["markers", "fenced", "tags", "hermes"] = "markers"
    """How calls are written. `markers`: the built-in dialogue. The others use the chat template of
    an imported model: Python code blocks (fenced), `<code>` tags (tags), JSON in `<tool_call>`
    (hermes)."""
    system_prompt: str | None = None
    """System prompt of a chat. None: the prompt of the protocol."""
    most_calls: Annotated[int, AT_LEAST_1] = 1
    """Largest number of calls in one turn."""
    stop_after_block: bool = False
    """End a turn behind the first block (fenced), for models that go on and invent its output."""
    template_variables: tuple[str, ...] = ()
    """Variables of the chat template, as in `enable_thinking=false`. Values are read as JSON, or
    else as text."""

    def __post_init__(self):
        if self.stop_after_block and self.protocol != "fenced":
            raise ValueError(
                f"dialogue.stop_after_block is for dialogue.protocol fenced, not {self.protocol};"
                " leave it out"
            )
        if self.stop_after_block and self.most_calls > 1:
            raise ValueError(
                f"dialogue.most_calls is {self.most_calls}, and with dialogue.stop_after_block a"
                " turn has one block; set it to 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifierConfig:
    """How answers are judged; `docs/verifiers.md` describes the kinds."""

    kind: str = "numeric"
    """Verifier for problems that name none: numeric, exact, math, choice, unit_tests,
    reasoning-gym, or a function of your own as `my.module:function`, which takes a problem and an
    answer and returns True or False."""
    tolerance: Annotated[float, DECAY] = 1e-6
    """Largest relative error of a decimal answer, from 0 to below 1. Integers must be equal."""
    seconds: Annotated[Changeable[float], POSITIVE] = 10.0
    """Wall time per `math` or `reasoning-gym` answer, in seconds. A slower answer counts as not
    verified."""
    workers: Annotated[Changeable[int], AT_LEAST_1] = 2
    """Worker processes for each of `math` and `reasoning-gym`, started when such answers occur."""

    def __post_init__(self):
        if self.kind not in KINDS and ":" not in self.kind:
            raise ValueError(
                f"verifier.kind must be one of {', '.join(KINDS)}, or a function of your own as"
                f" my.module:function, got {self.kind!r}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a run, except the folder it is written to."""

    model: Annotated[ModelConfig, Section(decides="the parameters")]
    """Shapes of the model. An imported model (`launch.convert import`) brings its own."""
    tokenizer: Annotated[str, Section(decides="the tokens that are learned")] = "tools-256"
    """Name of a shipped tokenizer, or path of a SentencePiece model. An imported model brings its
    own."""
    dialogue: Annotated[DialogueConfig, Section(decides="the turns that are learned")] = (
        DialogueConfig()
    )
    lora: Annotated[AdapterConfig, Section(decides="the parameters that are trained")] = (
        AdapterConfig()
    )
    seed: Annotated[int, Section(decides="problems, samples and batches")] = 0
    """Seed of parameters, problems and samples. Equal seeds give equal runs."""
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
    diffusion: Annotated[Canvas, Section(decides="how responses are written")] = dataclasses.field(
        default_factory=Canvas
    )
    """Responses of a diffusion model (`model.mask_id`); others write token by token."""
    tool: Annotated[ToolConfig, Section(decides="what programs give")] = ToolConfig()
    verifier: Annotated[VerifierConfig, Section(decides="what is rewarded")] = VerifierConfig()
    evaluation: Changeable[EvalConfig] = EvalConfig()
    wandb: Changeable[str] = ""
    """Weights & Biases project that also receives the metrics. Empty: metrics stay in the run
    folder."""
    mesh: Changeable[MeshConfig] = MeshConfig()
    preset: tyro.conf.SuppressFixed[tyro.conf.Fixed[Changeable[str]]] = ""
    """Name of the preset that the run began with."""

    def __post_init__(self):
        settings.check_bounds(self)
