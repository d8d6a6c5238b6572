"""The host loop of a rollout: slots of the decode programs, tools in flight, trajectories out.

Every slot holds one trajectory. Between two decode segments the loop reads what was sampled,
submits the calls of turns that ended, appends the observations of calls that returned, and refills
the slots of trajectories that ended. Rows in the middle of a turn go on meanwhile.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax import decoding, sampling, sharding, tools
from gtpo_jax.dialogue import Dialogue, violation_output
from gtpo_jax.slots import Request, Slot
from gtpo_jax.types import (
    ForwardFn,
    Params,
    Problem,
    StopReason,
    Tool,
    ToolResult,
    ToolStatus,
    Trajectory,
    Verifier,
)

TOOL_GRACE_SECONDS = 0.05
"""How long a segment boundary waits for the calls that were made at it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutLimits:
    """Shapes and budgets of a rollout. Token counts include markers."""

    slots: int = 128  # trajectories decoded at once
    context: int = 160  # tokens of a trajectory: prompt, turns and observations
    prompt_tokens: int = 48  # longest prompt
    max_turns: int = 4
    turn_tokens: int = 40  # tokens of one turn
    observation_tokens: int = 32  # tokens of one observation; more tool output is cut
    segment_steps: int = 16  # decode steps between two looks at the tools
    prefill_prompts: int = 8  # prompts of one prefill call
    extend_width: int = 32  # tokens of one extend call

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 1:
                raise ValueError(f"{field.name} must be at least 1, got {value}")
        if self.prompt_tokens >= self.context:
            raise ValueError(
                f"a context of {self.context} tokens leaves no room behind prompts of"
                f" {self.prompt_tokens}; raise context or lower prompt_tokens"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutProgress:
    """Where a rollout stands."""

    finished: int
    total: int
    sampled_tokens: int
    active_rows: int
    tools_in_flight: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutStats:
    """What a rollout cost."""

    sampled_tokens: int
    row_steps: int  # decode steps times slots, idle ones included
    tool_calls: int
    tool_seconds: float  # wall seconds inside tools, summed over calls


def render_prompt(dialogue: Dialogue, problem: Problem, limits: RolloutLimits) -> np.ndarray:
    """Ids of the prompt of a problem; an error when the limits have no room for it."""
    prompt = dialogue.prompt(problem.question)
    if len(prompt) > limits.prompt_tokens:
        raise ValueError(
            f"the prompt of problem {problem.id!r} has {len(prompt)} tokens, prompt_tokens is"
            f" {limits.prompt_tokens}; raise prompt_tokens (and context with it)"
        )
    return prompt


class RolloutEngine:
    """Runs rollouts of one model with one tool. Reusable: parameters come with each call."""

    def __init__(
        self,
        forward: ForwardFn,
        dialogue: Dialogue,
        tool: Tool,
        verifier: Verifier,
        limits: RolloutLimits,
        sampler: sampling.Sampler,
        *,
        mesh: jax.sharding.Mesh | None = None,
    ):
        vocab_size = dialogue.tokenizer.vocab_size
        if vocab_size > forward.vocab_size:
            raise ValueError(
                f"the tokenizer has {vocab_size} tokens, the model only {forward.vocab_size};"
                " use the tokenizer that the model was made for"
            )
        dialogue.observation("", budget=limits.observation_tokens)  # raises when it cannot fit
        row_sharding = None
        if mesh is not None:
            sharding.check_rows(limits.slots, mesh, "rollout slots")
            row_sharding = sharding.row_sharding(mesh)
        self.dialogue = dialogue
        self.tool = tool
        self.verifier = verifier
        self.limits = limits
        self.programs = decoding.make_programs(
            forward,
            sampler,
            rows=limits.slots,
            context=limits.context,
            segment_steps=limits.segment_steps,
            stop_ids=dialogue.stop_ids,
            vocab_size=vocab_size,
            row_sharding=row_sharding,
        )
        self.trajectory_keys = jax.jit(sampling.trajectory_keys)

    def prompt(self, problem: Problem) -> np.ndarray:
        """Ids of the prompt; an error when it is too long."""
        return render_prompt(self.dialogue, problem, self.limits)

    def run(
        self,
        params: Params,
        requests: Sequence[Request],
        *,
        seed: int,
        step: int,
        on_progress: Callable[[RolloutProgress], None] | None = None,
    ) -> tuple[list[Trajectory], RolloutStats]:
        """One trajectory per request, in their order.

        A trajectory depends on the parameters and (seed, step, problem, sample), not on the others.
        """
        prompts = {r.problem.id: self.prompt(r.problem) for r in requests}
        run = _Run(self, params, requests, prompts, seed=seed, step=step)
        try:
            while not run.done:
                run.advance()
                if on_progress is not None:
                    on_progress(run.progress())
        finally:
            run.cancel()
        return [run.finished[number] for number in range(len(requests))], run.stats()


class _Run:
    """One rollout under way."""

    def __init__(
        self,
        engine: RolloutEngine,
        params: Params,
        requests: Sequence[Request],
        prompts: dict[str, np.ndarray],
        *,
        seed: int,
        step: int,
    ):
        self.engine = engine
        self.limits = engine.limits
        self.dialogue = engine.dialogue
        self.params = params
        self.requests = requests
        self.prompts = prompts
        self.seed, self.step = np.uint32(seed % 2**32), np.uint32(step)
        self.state = engine.programs.init()
        self.slots: dict[int, Slot] = {}  # by row
        self.active = np.zeros(self.limits.slots, bool)
        self.started = 0
        self.finished: dict[int, Trajectory] = {}  # by number of the request
        self.sampled_tokens = self.row_steps = self.tool_calls = 0
        self.tool_seconds = 0.0

    def advance(self) -> None:
        """Refill, one decode segment, tools, observations."""
        while self.started < len(self.requests) and len(self.slots) < self.limits.slots:
            self._prefill()
        called = self._decode() if self.active.any() else []
        self._collect_calls(called)
        while any(len(slot.to_append) for slot in self.slots.values()):
            self._extend()

    @property
    def done(self) -> bool:
        return len(self.finished) == len(self.requests)

    def cancel(self) -> None:
        """Gives up the calls still in flight."""
        for slot in self.slots.values():
            if slot.call is not None:
                slot.call.cancel()

    def progress(self) -> RolloutProgress:
        return RolloutProgress(
            finished=len(self.finished),
            total=len(self.requests),
            sampled_tokens=self.sampled_tokens,
            active_rows=int(self.active.sum()),
            tools_in_flight=sum(slot.call is not None for slot in self.slots.values()),
        )

    def stats(self) -> RolloutStats:
        return RolloutStats(
            sampled_tokens=self.sampled_tokens,
            row_steps=self.row_steps,
            tool_calls=self.tool_calls,
            tool_seconds=self.tool_seconds,
        )

    def _prefill(self) -> None:
        """Puts waiting requests into free rows, each distinct prompt of the call computed once."""
        limits = self.limits
        tokens = np.zeros((limits.prefill_prompts, limits.prompt_tokens), np.int32)
        counts = np.ones(limits.prefill_prompts, np.int32)
        source = np.full(limits.slots, -1, np.int32)
        row_limits = np.zeros(limits.slots, np.int32)
        problems = np.zeros(limits.slots, np.uint32)
        samples = np.zeros(limits.slots, np.uint32)
        index_of: dict[str, int] = {}
        for row in sorted(set(range(limits.slots)) - set(self.slots)):
            if self.started == len(self.requests):
                break
            request = self.requests[self.started]
            problem = request.problem.id
            prompt = self.prompts[problem]
            if problem not in index_of:
                if len(index_of) == limits.prefill_prompts:
                    break
                index = index_of[problem] = len(index_of)
                tokens[index, : len(prompt)] = prompt
                counts[index] = len(prompt)
            slot = self.slots[row] = Slot(self.started, request, prompt)
            self.started += 1
            self.active[row] = True
            source[row] = index_of[problem]
            row_limits[row] = self._turn_limit(slot)
            problems[row] = zlib.crc32(problem.encode())
            samples[row] = request.sample
        prompts = decoding.Prompts(
            tokens=jnp.asarray(tokens),
            counts=jnp.asarray(counts),
            source=jnp.asarray(source),
            keys=self.engine.trajectory_keys(self.seed, self.step, problems, samples),
            limits=jnp.asarray(row_limits),
        )
        self.state = self.engine.programs.prefill(self.params, self.state, prompts)

    def _decode(self) -> list[futures.Future[ToolResult]]:
        """One segment; returns the calls that its turns made."""
        self.state, segment = self.engine.programs.decode_segment(self.params, self.state)
        sampled = jax.device_get(segment)
        self.sampled_tokens += int(sampled.counts.sum())
        self.row_steps += int(sampled.counts.max()) * self.limits.slots
        called = []
        for row in map(int, np.flatnonzero(self.active)):
            slot, count = self.slots[row], sampled.counts[row]
            slot.write(sampled.tokens[row, :count], sampled.logprobs[row, :count])
            if not sampled.active[row]:
                call = self._end_turn(row, slot)
                called += [] if call is None else [call]
        self.active = np.array(sampled.active)
        return called

    def _end_turn(self, row: int, slot: Slot) -> futures.Future[ToolResult] | None:
        parsed = slot.end_turn(self.dialogue)
        stop = slot.stop_reason(
            parsed,
            stop_ids=self.dialogue.stop_ids,
            turn_tokens=self.limits.turn_tokens,
            max_turns=self.limits.max_turns,
        )
        if stop is not None:
            self._finish(row, stop, parsed.answer)
        elif parsed.code is not None:
            slot.call = self.engine.tool.submit(parsed.code)
            self.tool_calls += 1
            return slot.call
        else:
            self._observe(row, violation_output(parsed.violation or ""), None)
        return None

    def _collect_calls(self, called: Sequence[futures.Future[ToolResult]]) -> None:
        """Observes the calls that have returned.

        Calls just made get a moment to return, so that rows re-enter together; older ones are only
        polled. With no row left to decode, waits for whichever call returns first.
        """
        futures.wait(called, timeout=TOOL_GRACE_SECONDS)
        waiting = {row: slot.call for row, slot in self.slots.items() if slot.call is not None}
        if waiting and not self.active.any() and not self._has_work():
            futures.wait(waiting.values(), return_when=futures.FIRST_COMPLETED)
        for row, call in waiting.items():
            if call.done():
                self._return_call(row, call.result())

    def _has_work(self) -> bool:
        """Something besides calls in flight can go on: rows to extend or to fill."""
        free = len(self.slots) < self.limits.slots and self.started < len(self.requests)
        return free or any(len(slot.to_append) for slot in self.slots.values())

    def _return_call(self, row: int, result: ToolResult) -> None:
        slot = self.slots[row]
        slot.call = None
        self.tool_seconds += result.wall_seconds
        if result.status is ToolStatus.INFRA_ERROR:
            slot.end_unobserved(result)
            self._finish(row, StopReason.TOOL_FAILURE, None)
        else:
            self._observe(row, tools.render_tool_result(result), result)

    def _observe(self, row: int, output: str, result: ToolResult | None) -> None:
        """Queues the observation of the last turn, or ends the trajectory when it has no room."""
        slot = self.slots[row]
        budget = self.limits.observation_tokens
        observation, dropped = self.dialogue.observation(output, budget=budget)
        if slot.length + len(observation) >= self.limits.context:
            slot.end_unobserved(result)
            self._finish(row, StopReason.CONTEXT_FULL, None)
        else:
            slot.observe(observation, dropped, result)

    def _extend(self) -> None:
        """Appends the next `extend_width` tokens of every queued observation."""
        rows, width = self.limits.slots, self.limits.extend_width
        tokens = np.zeros((rows, width), np.int32)
        counts = np.zeros(rows, np.int32)
        row_limits = np.zeros(rows, np.int32)
        begins = np.zeros(rows, bool)
        for row, slot in self.slots.items():
            chunk = slot.next_chunk(width)
            if len(chunk):
                tokens[row, : len(chunk)] = chunk
                counts[row] = len(chunk)
                row_limits[row] = self._turn_limit(slot)
                begins[row] = not len(slot.to_append)
        appended = decoding.Appended(
            tokens=jnp.asarray(tokens),
            counts=jnp.asarray(counts),
            limits=jnp.asarray(row_limits),
            begins=jnp.asarray(begins),
        )
        self.state = self.engine.programs.extend(self.params, self.state, appended)
        self.active |= begins

    def _turn_limit(self, slot: Slot) -> int:
        """Length at which the turn that begins now must have ended."""
        return min(slot.length + self.limits.turn_tokens, self.limits.context)

    def _finish(self, row: int, stop: StopReason, answer: str | None) -> None:
        slot = self.slots.pop(row)
        verdict = self.engine.verifier(slot.request.problem, answer)
        self.finished[slot.number] = slot.trajectory(stop, verdict, answer)
