"""The part of `benchmarks.needs` that runs in a tree of the repository, this one or another.

python needs_worker.py '{"width": 256, ..., "methods": {"without needs": "gtpo", ...}}'

The tree is the first of PYTHONPATH. Prints what the compiled updates take as one line of JSON, by
the names of the methods, then makes an update for each name that it reads, and prints its
seconds and the norm of its gradient.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from typing import Any

import jax
import numpy as np

from benchmarks import update_fixture as fixture
from configs.methods import make_method, split
from configs.parts import make_optimizer
from gtpo_jax import learner
from gtpo_jax.learner import packing
from gtpo_jax.types import TokenBatch
from models import decoder


def filled(batch: TokenBatch, needs: frozenset[str], vocab_size: int, count: int) -> TokenBatch:
    """The batch with some numbers in the fields that a loss needs."""
    if "candidates" in needs:
        from gtpo_jax.types import Candidates  # older trees have none

        shape = (*batch.tokens.shape, count)
        ids = np.random.default_rng(0).integers(0, vocab_size, shape).astype(np.int32)
        chance = np.full(shape, -np.log(vocab_size), np.float32)
        batch = dataclasses.replace(batch, candidates=Candidates(ids, chance))
    if "proximal_logprobs" in needs:
        batch = dataclasses.replace(batch, proximal_logprobs=batch.behavior_logprobs)
    return batch


class Update:
    """The compiled update of a method, and its state."""

    def __init__(self, spelling: str, options: dict[str, Any]):
        config = fixture.model_config(
            **{name: options[name] for name in ("vocab_size", "width", "layers")}
        )
        method = make_method(split(spelling))
        given = fixture.make_batch(
            count=options["trajectories"],
            context=options["context"],
            vocab_size=config.vocab_size,
            equal=True,
        )
        packed = packing.pack(
            given.trajectories,
            given.advantages,
            micro_batches=-(-options["trajectories"] // options["rows"]),
            rows=options["rows"],
            row_length=options["context"],
        )
        count = method.loss.candidates if "candidates" in method.loss.needs else 0
        batch = jax.device_put(filled(packed, method.loss.needs, config.vocab_size, count))
        optimizer = make_optimizer(fixture.OPTIMIZER, steps=fixture.STEPS)
        state = learner.init_state(fixture.init_params(config), optimizer)
        update = learner.make_update(
            decoder.forward_fn(config),
            optimizer,
            method.loss,
            method.reduce,
            chunk=options["chunk"],
        )
        program = learner.CompiledUpdate(update, state).program
        self.program = program.lower(learner.changing(state), state.frozen, batch).compile()
        self.changing, self.frozen, self.batch = learner.changing(state), state.frozen, batch

    def run(self) -> dict[str, float]:
        """Makes one update; returns its seconds, and the norm of its gradient."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.changing, metrics = jax.block_until_ready(
            self.program(self.changing, self.frozen, self.batch)
        )
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        return seconds | {"norm": float(metrics["grad_norm"])}

    def facts(self) -> dict[str, float]:
        """Bytes and operations of the program, as the compiler counts them."""
        cost: Any = self.program.cost_analysis()
        memory: Any = self.program.memory_analysis()
        return {"memory": memory.temp_size_in_bytes, "operations": cost["flops"]}


def main(options: dict[str, Any]) -> None:
    make = functools.cache(lambda name: Update(options["methods"][name], options))
    print(json.dumps({name: make(name).facts() for name in options["methods"]}), flush=True)
    for line in sys.stdin:
        print(json.dumps(make(line.strip()).run()), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
