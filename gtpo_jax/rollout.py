"""The host loop of a rollout: slots of the decode programs, tools in flight, trajectories out.

Every slot holds one trajectory. Between two decode segments the loop reads what was sampled,
submits the calls of turns that ended, appends the observations of calls that returned, and refills
the slots of trajectories that ended. Rows in the middle of a turn go on meanwhile.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np

from gtpo_jax import decoding, sampling, sharding, stops, tools
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


EARLY_SHARE = 8
"""A segment ends early once one in so many slots has ended its turn, and others wait."""

WAIT_SECONDS = 0.2
"""How often progress is told while there is nothing to do but to wait for tools."""

Refresh = Callable[[], tuple[Params, int] | None]
"""Asked between two segments: newer parameters and their version, or None."""


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
    first_cache: int = 512  # positions of the cache at first; it doubles up to the context

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

    # Shapes come in a few sizes, since a program is compiled for each of them.

    @property
    def cache_lengths(self) -> tuple[int, ...]:
        """Positions that the cache may have, ascending."""
        lengths = [max(self.first_cache, self.prompt_tokens)]
        while lengths[-1] < self.context:
            lengths.append(2 * lengths[-1])
        return (*lengths[:-1], self.context)

    @property
    def prompt_counts(self) -> tuple[int, ...]:
        """Prompts of a prefill call: none, when rows only copy those of others; one; or all."""
        return tuple(sorted({0, 1, self.prefill_prompts}))

    @property
    def prompt_widths(self) -> tuple[int, ...]:
        return tuple(sorted({-(-self.prompt_tokens // 4), self.prompt_tokens}))


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
    prefilled_tokens: int  # positions of all prefill calls, padding included
    extended_tokens: int  # positions of all extend calls, padding included
    tool_calls: int
    tool_seconds: float  # wall seconds inside tools, summed over calls


def _fitting(sizes: Sequence[int], needed: int) -> int:
    """The first of the ascending sizes that is `needed` or more."""
    return next(size for size in sizes if size >= needed)


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
        table = None
        if dialogue.stop_strings:
            texts = [dialogue.tokenizer.token_bytes(token) for token in range(vocab_size)]
            table = stops.build(dialogue.stop_strings, texts)
        self.dialogue = dialogue
        self.tool = tool
        self.verifier = verifier
        self.limits = limits
        # A few rows are taken out to be extended, unless they lie on several devices.
        spread = row_sharding is not None and row_sharding.num_devices > 1
        few = limits.slots if spread else -(-limits.slots // 8)
        self.extend_sizes = tuple(sorted({few, limits.slots}))
        self.programs = decoding.make_programs(
            forward,
            sampler,
            rows=limits.slots,
            segment_steps=limits.segment_steps,
            stop_ids=dialogue.stop_ids,
            vocab_size=vocab_size,
            stop_table=table,
            row_sharding=row_sharding,
        )
        self.trajectory_keys = jax.jit(sampling.trajectory_keys)

    def prompt(self, problem: Problem) -> np.ndarray:
        """Ids of the prompt; an error when it is too long."""
        return render_prompt(self.dialogue, problem, self.limits)

    def warm_up(self, params: Params) -> None:
        """Compiles all that rollouts will need, whatever their size: none compiles anything after.

        A rollout without it compiles each program when it first needs it.
        """
        programs, limits = self.programs, self.limits
        nobody = np.zeros(limits.slots, np.uint32)
        keys = self.trajectory_keys(np.uint32(0), np.uint32(0), nobody, nobody)
        none = jnp.zeros(limits.slots, jnp.int32)
        state = None
        for positions in limits.cache_lengths:
            state = programs.init(positions) if state is None else programs.grow(state, positions)
            for count, width in itertools.product(limits.prompt_counts, limits.prompt_widths):
                tokens = jnp.zeros((count, width), jnp.int32)
                prompts = decoding.Prompts(
                    tokens=tokens,
                    source=none - 1,
                    lengths=none,
                    pending=none,
                    keys=keys,
                    limits=none,
                    begins=jnp.asarray(True),
                )
                state = programs.prefill(params, state, prompts)
            for size in self.extend_sizes:
                nothing = jnp.zeros(size, jnp.int32)
                appended = decoding.Appended(
                    rows=nothing + limits.slots,
                    tokens=jnp.zeros((size, limits.extend_width), jnp.int32),
                    counts=nothing + 1,
                    limits=nothing,
                    begins=nothing > 0,
                )
                state = programs.extend(params, state, appended)
            state, _ = programs.decode_segment(params, state, jnp.asarray(0, jnp.int32))

    def run(
        self,
        params: Params,
        requests: Sequence[Request],
        *,
        seed: int,
        step: int,
        version: int = 0,
        refresh: Refresh | None = None,
        on_progress: Callable[[RolloutProgress], None] | None = None,
    ) -> tuple[list[Trajectory], RolloutStats]:
        """One trajectory per request, in their order.

        A trajectory depends on the parameters and (seed, step, problem, sample), not on the others.
        `version` is that of `params`; every turn records the one it was sampled with. When
        `refresh` has newer parameters, all caches are computed anew with those, and turns go on in
        the middle. An exception, also one of `on_progress`, gives the rollout up: the calls in
        flight are canceled.
        """
        prompts = {r.problem.id: self.prompt(r.problem) for r in requests}
        run = _Run(self, params, requests, prompts, seed=seed, step=step, version=version)
        try:
            while not run.done:
                newer = refresh() if refresh is not None else None
                if newer is not None:
                    run.refresh(*newer)
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
        version: int,
    ):
        self.engine = engine
        self.limits = engine.limits
        self.dialogue = engine.dialogue
        self.params, self.version = params, version
        self.requests = requests
        self.prompts = prompts
        self.seed, self.step = np.uint32(seed % 2**32), np.uint32(step)
        self.positions = self.limits.cache_lengths[0]
        self.state = engine.programs.init(self.positions)
        self.slots: dict[int, Slot] = {}  # by row
        self.active = np.zeros(self.limits.slots, bool)
        self.holds: dict[int, str] = {}  # row → problem whose prompt its cache begins with
        self.started = 0
        self.finished: dict[int, Trajectory] = {}  # by number of the request
        self.sampled_tokens = self.row_steps = self.tool_calls = 0
        self.prefilled_tokens = self.extended_tokens = 0
        self.tool_seconds = 0.0

    def advance(self) -> None:
        """Refill, one decode segment, tools, observations."""
        while self.started < len(self.requests) and len(self.slots) < self.limits.slots:
            self._refill()
        if self.active.any():
            self._decode()
        self._collect_calls(self._submit_calls())
        while any(len(slot.to_append) for slot in self.slots.values()):
            chunks = {
                row: (slot.next_chunk(self.limits.extend_width), not len(slot.to_append))
                for row, slot in self.slots.items()
                if len(slot.to_append)
            }
            self._extend(chunks)

    def refresh(self, params: Params, version: int) -> None:
        """Goes on with other parameters: no key or value of the old ones is used again."""
        self.params, self.version = params, version
        self.holds.clear()
        active = self.active.copy()
        rows = {row: slot.request.problem for row, slot in self.slots.items()}
        while rows:
            rows = self._prefill(rows, begins=False)
        histories = {row: slot.history() for row, slot in self.slots.items()}
        width = self.limits.extend_width
        while any(map(len, histories.values())):
            chunks = {row: (tokens[:width], False) for row, tokens in histories.items()}
            histories = {row: tokens[width:] for row, tokens in histories.items()}
            self._extend({row: chunk for row, chunk in chunks.items() if len(chunk[0])})
        self.state = dataclasses.replace(self.state, active=self._placed(active))
        self.active = active

    @property
    def done(self) -> bool:
        return len(self.finished) == len(self.requests)

    def cancel(self) -> None:
        """Gives up the calls still in flight."""
        for slot in self.slots.values():
            slot.cancel()

    def progress(self) -> RolloutProgress:
        return RolloutProgress(
            finished=len(self.finished),
            total=len(self.requests),
            sampled_tokens=self.sampled_tokens,
            active_rows=int(self.active.sum()),
            tools_in_flight=sum(len(slot.calls) for slot in self.slots.values()),
        )

    def stats(self) -> RolloutStats:
        return RolloutStats(
            sampled_tokens=self.sampled_tokens,
            row_steps=self.row_steps,
            prefilled_tokens=self.prefilled_tokens,
            extended_tokens=self.extended_tokens,
            tool_calls=self.tool_calls,
            tool_seconds=self.tool_seconds,
        )

    def _refill(self) -> None:
        """Puts waiting requests into free rows."""
        rows: dict[int, Problem] = {}
        for row in sorted(set(range(self.limits.slots)) - set(self.slots)):
            if self.started == len(self.requests):
                break
            request = self.requests[self.started]
            slot = Slot(self.started, request, self.prompts[request.problem.id])
            slot.limit = self._turn_limit(slot)
            self.slots[row] = slot
            self.started += 1
            rows[row] = request.problem
        while rows:
            rows = self._prefill(rows, begins=True)

    def _prefill(self, rows: dict[int, Problem], *, begins: bool) -> dict[int, Problem]:
        """Begins rows with the prompts of their slots; returns those that found no room.

        A prompt is computed once: a row of the same problem, of whatever call, gets a copy.
        """
        limits = self.limits
        holder = {problem: row for row, problem in self.holds.items()}
        new: dict[str, int] = {}  # problem → its index among the prompts of the call
        placed: dict[int, str] = {}
        for row, problem in rows.items():
            if problem.id not in holder and problem.id not in new:
                if len(new) == limits.prefill_prompts:
                    continue
                new[problem.id] = len(new)
            placed[row] = problem.id
        prompts = {problem: self.prompts[problem] for problem in {*placed.values()}}
        count = _fitting(limits.prompt_counts, len(new))
        width = _fitting(limits.prompt_widths, max(map(len, prompts.values())))
        tokens = np.zeros((count, width), np.int32)
        for problem, index in new.items():
            tokens[index, : len(prompts[problem])] = prompts[problem]
        source = np.full(limits.slots, -1, np.int32)
        lengths, pending, row_limits = (np.zeros(limits.slots, np.int32) for _ in range(3))
        problems, samples = (np.zeros(limits.slots, np.uint32) for _ in range(2))
        for row, problem in placed.items():
            slot, prompt = self.slots[row], prompts[problem]
            source[row] = new[problem] if problem in new else count + holder[problem]
            lengths[row], pending[row] = len(prompt) - 1, prompt[-1]
            row_limits[row] = slot.limit
            problems[row] = zlib.crc32(problem.encode())
            samples[row] = slot.request.sample
        self.state = self.engine.programs.prefill(
            self.params,
            self.state,
            decoding.Prompts(
                tokens=jnp.asarray(tokens),
                source=jnp.asarray(source),
                lengths=jnp.asarray(lengths),
                pending=jnp.asarray(pending),
                keys=self.engine.trajectory_keys(self.seed, self.step, problems, samples),
                limits=jnp.asarray(row_limits),
                begins=jnp.asarray(begins),
            ),
        )
        self.prefilled_tokens += count * width
        for row, problem in placed.items():
            self.holds[row] = problem
            self.active[row] = begins
        return {row: problem for row, problem in rows.items() if row not in placed}

    def _decode(self) -> None:
        """One segment: turns go on, and some of them end."""
        limits, rows = self.limits, list(map(int, np.flatnonzero(self.active)))
        slots = [self.slots[row] for row in rows]
        self._make_room(max(min(s.limit, s.length + limits.segment_steps) for s in slots))
        # Rows that have ended are worth a look before the others have, if anybody could use them.
        wanted = self.started < len(self.requests) or any(s.waiting for s in self.slots.values())
        floor = len(rows) - max(1, limits.slots // EARLY_SHARE) if wanted else 0
        self.state, segment = self.engine.programs.decode_segment(
            self.params, self.state, jnp.asarray(max(floor, 0), jnp.int32)
        )
        sampled = jax.device_get(segment)
        self.sampled_tokens += int(sampled.counts.sum())
        self.row_steps += int(sampled.counts.max()) * limits.slots
        for row, slot in zip(rows, slots, strict=True):
            count = sampled.counts[row]
            slot.write(
                jax.tree.map(lambda x, r=row, n=count: x[r, :n], sampled.draws), self.version
            )
            if not sampled.active[row]:
                self._end_turn(row, slot, matched=bool(sampled.matched[row]))
        self.active = np.array(sampled.active)

    def _end_turn(self, row: int, slot: Slot, *, matched: bool) -> None:
        parsed = slot.end_turn(self.dialogue)
        stop = slot.stop_reason(
            parsed,
            whole=slot.ended or matched,
            turn_tokens=self.limits.turn_tokens,
            max_turns=self.limits.max_turns,
        )
        if stop is not None:
            self._finish(row, stop, parsed.answer)
        elif parsed.codes:
            slot.to_submit = list(parsed.codes)
            slot.called_at = self.tool_calls
            self.tool_calls += len(parsed.codes)
        else:
            self._observe(row, violation_output(parsed.violation or ""), ())

    def _submit_calls(self) -> list[futures.Future[ToolResult]]:
        """Hands the tool its calls, the oldest first, as many as it takes; returns those."""
        submitted: list[futures.Future[ToolResult]] = []
        for slot in sorted(self.slots.values(), key=lambda slot: slot.called_at):
            while slot.to_submit:
                try:
                    call = self.engine.tool.submit(slot.to_submit[0])
                except tools.ExecutorBusy:
                    return submitted
                slot.to_submit.pop(0)
                slot.calls.append(call)
                submitted.append(call)
        return submitted

    def _collect_calls(self, submitted: Sequence[futures.Future[ToolResult]]) -> None:
        """Observes the turns whose calls have all returned, the oldest first.

        Calls just made get a moment to return, so that rows re-enter together; older ones are only
        polled. With nothing else to do, waits for whichever call returns first.
        """
        futures.wait(submitted, timeout=TOOL_GRACE_SECONDS)
        waiting = {row: slot for row, slot in self.slots.items() if slot.waiting}
        if waiting and not self.active.any() and not self._has_work():
            calls = [call for slot in waiting.values() for call in slot.calls]
            futures.wait(calls, timeout=WAIT_SECONDS, return_when=futures.FIRST_COMPLETED)
            if not calls:
                time.sleep(TOOL_GRACE_SECONDS)  # the tool is busy with others' calls
        for row, slot in sorted(waiting.items(), key=lambda item: item[1].called_at):
            if not slot.to_submit and all(call.done() for call in slot.calls):
                self._return_calls(row, slot.results())

    def _has_work(self) -> bool:
        """Something besides calls in flight can go on: rows to extend or to fill."""
        free = len(self.slots) < self.limits.slots and self.started < len(self.requests)
        return free or any(len(slot.to_append) for slot in self.slots.values())

    def _return_calls(self, row: int, results: tuple[ToolResult, ...]) -> None:
        self.tool_seconds += sum(result.wall_seconds for result in results)
        if any(result.status is ToolStatus.INFRA_ERROR for result in results):
            self.slots[row].end_unobserved(results)
            self._finish(row, StopReason.TOOL_FAILURE, None)
        else:
            self._observe(row, "\n".join(map(tools.render_tool_result, results)), results)

    def _observe(self, row: int, output: str, results: tuple[ToolResult, ...]) -> None:
        """Queues the observation of the last turn, or ends the trajectory when it has no room."""
        slot = self.slots[row]
        budget = self.limits.observation_tokens
        observation, dropped = self.dialogue.observation(output, budget=budget, ended=slot.ended)
        if slot.length + len(observation) >= self.limits.context:
            slot.end_unobserved(results)
            self._finish(row, StopReason.CONTEXT_FULL, None)
        else:
            slot.observe(observation, dropped, results)
            slot.limit = self._turn_limit(slot)

    def _extend(self, chunks: dict[int, tuple[np.ndarray, bool]]) -> None:
        """Appends to each row its tokens; the row goes on decoding behind them where so told."""
        limits = self.limits
        self._make_room(max(self.slots[row].length for row in chunks))
        size, width = _fitting(self.engine.extend_sizes, len(chunks)), limits.extend_width
        rows = np.full(size, limits.slots, np.int32)
        tokens = np.zeros((size, width), np.int32)
        counts, row_limits = (np.zeros(size, np.int32) for _ in range(2))
        begins = np.zeros(size, bool)
        for index, (row, (chunk, begin)) in enumerate(chunks.items()):
            at = row if size == limits.slots else index  # all rows: everyone at its own place
            rows[at] = row
            tokens[at, : len(chunk)] = chunk
            counts[at] = len(chunk)
            row_limits[at] = self.slots[row].limit
            begins[at] = begin
            self.active[row] |= begin
        appended = decoding.Appended(
            rows=jnp.asarray(rows),
            tokens=jnp.asarray(tokens),
            counts=jnp.asarray(counts),
            limits=jnp.asarray(row_limits),
            begins=jnp.asarray(begins),
        )
        self.state = self.engine.programs.extend(self.params, self.state, appended)
        self.extended_tokens += size * width

    def _make_room(self, needed: int) -> None:
        """Makes the cache longer, to the next of its few lengths, when it has to be."""
        positions = _fitting(self.limits.cache_lengths, needed)
        if positions > self.positions:
            self.positions = positions
            self.state = self.engine.programs.grow(self.state, positions)

    def _placed(self, active: np.ndarray) -> jax.Array:
        return jax.device_put(active, self.state.active.sharding)

    def _turn_limit(self, slot: Slot) -> int:
        """Length at which the turn that begins now must have ended."""
        return min(slot.length + self.limits.turn_tokens, self.limits.context)

    def _finish(self, row: int, stop: StopReason, answer: str | None) -> None:
        slot = self.slots.pop(row)
        verdict = self.engine.verifier(slot.request.problem, answer)
        self.finished[slot.number] = slot.trajectory(stop, verdict, answer)
