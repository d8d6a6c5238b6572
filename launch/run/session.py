"""The parts that every launcher builds from a config: devices, tokenizer, problems, model, tool."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterable

import jax
from jax.sharding import Mesh

from configs.methods import make_method
from configs.parts import make_lora, make_tool, make_verifier
from configs.problems import make_source
from configs.schema import RunConfig
from configs.training import check_facts
from gtpo_jax import decoding, rollout
from gtpo_jax.decoding import sampling
from gtpo_jax.devices import sharding
from gtpo_jax.language import tokenizers
from gtpo_jax.language.gold import gold_answer
from gtpo_jax.language.grammar import AnyDialogue, Dialogue
from gtpo_jax.learner.checkpoint import has_checkpoint
from gtpo_jax.parts.plans import HostedPlan
from gtpo_jax.results import metrics
from gtpo_jax.tasks import stream
from gtpo_jax.types import ForwardFn, Params, Problem, TokenBatch
from launch.run import cluster, display, imported_model, memory
from launch.run.network import CHECKPOINTS, Network


class Session:
    """The parts of a run. Use it as a context manager: it owns the processes of the tool and of the
    verifier.

    The model is the config's, unless one was imported into the run or is passed in.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: pathlib.Path,
        *,
        model: imported_model.Imported | None = None,
    ):
        enable_compilation_cache()
        self.run_dir = run_dir
        self.imported = imported_model.of_run(run_dir) if model is None else model
        self.config = config = imported_model.with_model(config, self.imported)
        if config.wandb:
            metrics.import_wandb()
        self.source = make_source(config)
        for note in self.source.notes if isinstance(self.source, stream.GrainTask) else ():
            display.CONSOLE.print(note, highlight=False, soft_wrap=True)
        self.method = make_method(config.train.method)
        check_facts(self.method, self.source)
        self.dialogue = self._make_dialogue()
        self.mesh = sharding.make_mesh(**dataclasses.asdict(config.mesh))
        self.local_mesh = sharding.local_mesh(self.mesh)
        self.network = self._make_network(self.mesh)
        self.forward = self._restricted(self.network.forward)
        check_batches(config, self.mesh)
        memory.check_memory(config, self.local_mesh)
        self.tool = make_tool(config.tool)
        self.verifier = make_verifier(config.verifier, self.tool)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_) -> None:
        self.verifier.close()
        self.tool.close()

    def load_params(self, run_dir: pathlib.Path, phase: str, step: int | None = None) -> Params:
        """Parameters from a checkpoint of a phase (`sft`, `train` or `import`) of a run, by default
        from the newest.
        """
        folder = run_dir / phase / CHECKPOINTS
        if not has_checkpoint(folder):
            raise ValueError(f"no checkpoint in {folder}; run `python -m launch.{phase}` first")
        return self.network.load(run_dir / phase, step)

    def load_start(self, run_dir: pathlib.Path) -> Params:
        """Parameters that reinforcement learning begins with: the cold start of a run, or else its
        imported model.
        """
        cold = imported_model.of_run(run_dir) is None or has_checkpoint(
            run_dir / "sft" / CHECKPOINTS
        )
        return self.load_params(run_dir, "sft" if cold else imported_model.PHASE)

    def load_newest(self) -> Params:
        """Parameters from the newest checkpoint of the run's latest phase."""
        trained = has_checkpoint(self.run_dir / "train" / CHECKPOINTS)
        return self.load_params(self.run_dir, "train") if trained else self.load_start(self.run_dir)

    def put_batch(self, batch: TokenBatch) -> TokenBatch:
        """Places a batch `[A, B, T]`, which every process has, on the devices, which share its
        rows.
        """
        return sharding.distribute(batch, sharding.batch_sharding(self.mesh, leading=1))

    def localize(self, params: Params) -> Params:
        """Parameters as the engines of this process take them; valid until the next update."""
        return sharding.localize(params, self.mesh)

    def engine(self, sampler: sampling.Sampler) -> rollout.RolloutEngine:
        """An engine on the devices of this process."""
        alone = self.local_mesh is self.mesh
        forward = self.network.forward if alone else self._make_network(self.local_mesh).forward
        return rollout.RolloutEngine(
            self._restricted(forward),
            self.dialogue,
            self.tool,
            self.verifier,
            self.config.rollout,
            sampler,
            mesh=self.local_mesh,
        )

    def _make_network(self, mesh: Mesh) -> Network:
        config = self.config
        return Network(config.model, mesh, lora=make_lora(config.lora), seed=config.seed)

    def _restricted(self, forward: ForwardFn) -> ForwardFn:
        """The forward pass without the token ids that the tokenizer does not have."""
        tokenizer = self.dialogue.tokenizer
        return decoding.restrict_vocabulary(
            forward, tokenizer.vocab_size, unused=getattr(tokenizer, "unused_ids", ())
        )

    def check_prompts(self, problems: Iterable[Problem], *, scored: bool = False) -> None:
        """Raises if the prompt of a problem is longer than the rollout allows, or if answers to it
        could not be verified. `scored`: its gold answer must be one that the policy can write.
        The problem must have what the plan of the method reads, and all prompts that the plan is
        known to need must fit as well.
        """
        plan = self.method.plan
        for problem in problems:
            self.verifier.check(problem)
            rollout.render_prompt(self.dialogue, problem, self.config.rollout)
            if isinstance(plan, HostedPlan):
                plan.check(problem)
                for question in plan.questions(problem):
                    self._check_room(problem, question)
            if scored:
                gold_answer(self.dialogue, problem)

    def _check_room(self, problem: Problem, question: str) -> None:
        """Raises if a prompt of a plan leaves no room in the context."""
        length, context = len(self.dialogue.prompt(question)), self.config.rollout.context
        if length >= context:
            raise ValueError(
                f"a prompt that the plan makes for problem {problem.id!r} has {length} tokens,"
                f" rollout.context is {context}; raise it, or shorten {question[:60]!r}"
            )

    def save_tokenizer(self) -> None:
        """Saves the tokenizer in the run, because a checkpoint is useless with another one."""
        copy = self.run_dir / "tokenizer.model"
        self.run_dir.mkdir(parents=True, exist_ok=True)
        if self._tokenizer_path() != copy and cluster.is_first():
            shutil.copyfile(self._tokenizer_path(), copy)

    def _make_dialogue(self) -> AnyDialogue:
        if self.imported is not None:
            return imported_model.make_dialogue(self.config.dialogue, self.imported.source)
        tokenizer = tokenizers.SentencePieceTokenizer(self._tokenizer_path())
        return Dialogue(tokenizer, most_calls=self.config.dialogue.most_calls)

    def _tokenizer_path(self) -> pathlib.Path:
        return find_tokenizer(self.run_dir, self.config.tokenizer)


def find_tokenizer(run_dir: pathlib.Path, name: str) -> pathlib.Path:
    """The tokenizer of a run whose model was not imported: the saved one, or else the shipped one
    of this name, or a file.
    """
    own = run_dir / "tokenizer.model"
    if own.exists():
        return own
    shipped = tokenizers.ASSETS / f"{name}.model"
    return shipped if shipped.exists() else pathlib.Path(name)


def check_batches(config: RunConfig, mesh: Mesh) -> None:
    """Raises unless the devices can share the batches evenly and rows can hold any trajectory."""
    train, context = config.train, config.rollout.context
    for name, rows in (("sft.rows", config.sft.rows), ("train.rows", train.rows)):
        sharding.check_rows(rows, mesh, name, sharding.BATCH_AXES)
    if train.row_tokens is not None and train.row_tokens < context:
        raise ValueError(
            f"train.row_tokens is {train.row_tokens}, and a trajectory may have {context}"
            " (rollout.context); raise it, or leave it out"
        )
    shortest = (train.row_tokens or context) >> (train.row_buckets - 1)
    for name, tokens in (
        ("sft.row_tokens", config.sft.row_tokens),
        ("train.row_tokens, or rollout.context, in the shortest of train.row_buckets", shortest),
    ):
        sharding.check_rows(tokens, mesh, name, ("sequence",))


def enable_compilation_cache() -> None:
    """Saves compiled programs on disk where possible, so that a second run starts fast."""
    jax.config.update("jax_compilation_cache_dir", compilation_cache_folder())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def compilation_cache_folder() -> str | None:
    """A folder of the user's, created if it is missing; None if none can be written."""
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return chosen
    place = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    folder = pathlib.Path(place, "gtpo_jax", "jax")
    if not folder.is_absolute():  # nobody's home is known here
        return None
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return str(folder) if os.access(folder, os.W_OK) else None
