"""Fixtures of `benchmarks.rollout`: turns of known lengths, and a turn-synchronous scheme."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax import decoding
from gtpo_jax.decoding import sampling
from gtpo_jax.language.grammar import ASSISTANT, END, Dialogue, ParsedTurn
from gtpo_jax.rollout import Request, RolloutEngine, RolloutLimits
from gtpo_jax.testing import ByteTokenizer, FakeTool
from gtpo_jax.types import Cache, ForwardFn, Params, Problem
from gtpo_jax.verifiers import numeric_or_exact
from models.config import ModelConfig

VOCABULARY = 512
PROMPT = 16  # tokens
OUTPUT = "0" * 8  # tokens of a tool output
OBSERVATION = len(OUTPUT) + 3  # tokens, with its markers
PREFILL = 32  # prompts of a call
FIRST_CACHE = 64  # positions of the first cache, which doubles up to the context
BYTES = ByteTokenizer()


class WholeVocabulary(ByteTokenizer):
    """Bytes, followed by ids that are never read: a tokenizer with the model's vocabulary size."""

    @property
    def vocab_size(self) -> int:
        return VOCABULARY


@dataclasses.dataclass(frozen=True)
class EndlessDialogue(Dialogue):
    """A dialogue in which nothing ends a turn."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return ()

    def parse(
        self,
        tokens: Sequence[int] | np.ndarray,
        *,
        before: ParsedTurn | None = None,
        unmarked: bool = False,
    ) -> ParsedTurn:
        return ParsedTurn(text="")


@dataclasses.dataclass(frozen=True)
class CallingDialogue(Dialogue):
    """A dialogue in which every turn calls the tool."""

    def parse(
        self,
        tokens: Sequence[int] | np.ndarray,
        *,
        before: ParsedTurn | None = None,
        unmarked: bool = False,
    ) -> ParsedTurn:
        return ParsedTurn(text="", codes=("0",))


def model_config(width: int, layers: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=VOCABULARY,
        width=width,
        layers=layers,
        query_heads=4,
        kv_heads=2,
        head_dim=width // 4,
        mlp_width=4 * width,
        qkv_bias=True,
    )


def countdown(forward: ForwardFn, shortest: int, longest: int) -> ForwardFn:
    """The model with turns of `shortest` to `longest` tokens, uniformly, end marker included."""
    if not 2 <= shortest <= longest <= 257:
        raise ValueError(f"a turn has 2 to 257 tokens, got {shortest} to {longest}")

    def hidden(
        params: Params,
        tokens: jax.Array,
        positions: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        states, cache = forward.hidden(
            params, tokens, positions, segment_ids=segment_ids, cache=cache
        )
        return jnp.concatenate([tokens[..., None].astype(states.dtype), states], axis=-1), cache

    def logits(params: Params, hidden_states: jax.Array) -> jax.Array:
        tokens = hidden_states[..., 0].astype(jnp.int32)
        own = forward.logits(params, hidden_states[..., 1:])
        ids = jnp.arange(VOCABULARY)
        first = (ids >= shortest - 2) & (ids <= longest - 2)
        following = jnp.where(tokens == 0, BYTES.control_id(END), tokens - 1)[..., None]
        begins = (tokens == BYTES.control_id(ASSISTANT))[..., None]
        return jnp.where(jnp.where(begins, first, ids == following), 1e-6 * own, -jnp.inf)

    return dataclasses.replace(forward, hidden=hidden, logits=logits)


def make_engine(
    forward: ForwardFn,
    dialogue: Dialogue,
    tool: FakeTool,
    *,
    turns: int,
    longest: int,
    slots: int,
    parked: int = 0,
) -> RolloutEngine:
    context = PROMPT + turns * (longest + OBSERVATION)
    limits = RolloutLimits(
        slots=slots,
        parked=parked,
        prefill_prompts=min(slots, PREFILL),
        context=context,
        prompt_tokens=PROMPT,
        max_turns=turns,
        turn_tokens=longest,
        observation_tokens=OBSERVATION,
        extend_width=OBSERVATION,
        first_cache=FIRST_CACHE,
    )
    return RolloutEngine(forward, dialogue, tool, numeric_or_exact, limits, sampling.categorical)


def make_requests(groups: int, size: int) -> list[Request]:
    """Groups of `size` trajectories each, with prompts of `PROMPT` tokens."""
    problems = [
        Problem(id=str(group), question=f"{group:0{PROMPT - 3}}", answer="")
        for group in range(groups)
    ]
    return [
        Request(problem=problem, group=group, sample=sample)
        for group, problem in enumerate(problems)
        for sample in range(size)
    ]


def slow_tool(seconds: float, threads: int) -> FakeTool:
    """A tool whose every fourth call takes this long; the others return at once."""
    calls = itertools.count()
    return FakeTool(
        lambda code: OUTPUT,
        seconds=lambda code: seconds if next(calls) % 4 == 0 else 0.0,
        threads=threads,
    )


def turn_synchronous(
    engine: RolloutEngine, params: Params, requests: Sequence[Request], seed: int
) -> int:
    """Runs the requests batch by batch, turn by turn; returns the number of tokens sampled."""
    slots = engine.limits.slots
    batches = [requests[i : i + slots] for i in range(0, len(requests), slots)]
    return sum(_synchronous_batch(engine, params, batch, seed) for batch in batches)


def _synchronous_batch(
    engine: RolloutEngine, params: Params, batch: Sequence[Request], seed: int
) -> int:
    limits, programs = engine.limits, engine.programs
    rows = np.arange(limits.slots)
    state = programs.init(limits.slots, limits.context)
    problems = np.zeros(limits.slots, np.uint32)
    problems[: len(batch)] = [zlib.crc32(r.problem.id.encode()) for r in batch]
    keys = engine.trajectory_keys(np.uint32(seed), np.uint32(0), problems, np.zeros_like(problems))
    for begin in range(0, len(batch), limits.prefill_prompts):
        some = batch[begin : begin + limits.prefill_prompts]
        tokens = np.zeros((limits.prefill_prompts, PROMPT), np.int32)
        source, pending = np.full(limits.slots, -1, np.int32), np.zeros(limits.slots, np.int32)
        for index, request in enumerate(some):
            tokens[index] = engine.prompt(request.problem)
            source[begin + index], pending[begin + index] = index, tokens[index, -1]
        prompts = decoding.Prompts(
            tokens=jnp.asarray(tokens),
            source=jnp.asarray(source),
            lengths=jnp.full(limits.slots, PROMPT - 1),
            pending=jnp.asarray(pending),
            keys=keys,
            limits=jnp.full(limits.slots, PROMPT + limits.turn_tokens),
            begins=jnp.asarray(True),
        )
        state = programs.prefill(params, state, prompts)
    sampled = 0
    for turn in range(limits.max_turns):
        active = True
        while active:
            state, segment = programs.decode_segment(params, state, jnp.int32(0))
            segment = jax.device_get(segment)
            sampled += int(segment.counts.sum())
            active = bool(segment.active.any())
        if turn + 1 == limits.max_turns:
            break
        calls = [engine.tool.submit("0") for _ in batch]
        outputs = [call.result().stdout for call in calls]
        observation, _ = engine.dialogue.observation(outputs[0], budget=OBSERVATION)
        lengths = jax.device_get(state.lengths) + 1 + OBSERVATION
        appended = decoding.Appended(
            rows=jnp.asarray(np.where(rows < len(batch), rows, limits.slots).astype(np.int32)),
            tokens=jnp.asarray(np.tile(observation, (limits.slots, 1))),
            counts=jnp.full(limits.slots, OBSERVATION),
            limits=jnp.asarray(lengths + limits.turn_tokens),
            begins=jnp.asarray(rows < len(batch)),
        )
        state = programs.extend(params, state, appended)
    return sampled
