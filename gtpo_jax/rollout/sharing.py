"""Rollouts by several processes: each produces whole groups, on its own devices.

    mesh = sharding.make_mesh(...)  # over the devices of all processes
    engine = RolloutEngine(..., mesh=sharding.local_mesh(mesh))
    params = sharding.localize(state.params, mesh)
    run = functools.partial(engine.run, params, seed=seed, step=step)
    trajectories, stats = sharing.share(run, requests)

Every process then has all trajectories, as if it had sampled them alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax

from gtpo_jax.devices import processes
from gtpo_jax.rollout.dynamic import RunFn
from gtpo_jax.rollout.progress import RolloutStats, total_stats
from gtpo_jax.types import Request, Trajectory


def deal(
    requests: Sequence[Request], *, processes: int | None = None, process: int | None = None
) -> list[Request]:
    """The requests of one process, by default of this one, in their order.

    A group goes to one process whole: the largest group first, each to the process with the fewest
    trajectories so far. So two processes differ by no more than the largest group.
    """
    processes = jax.process_count() if processes is None else processes
    process = jax.process_index() if process is None else process
    if not 0 <= process < processes:
        raise ValueError(f"process {process} is none of {processes} processes; they count from 0")
    sizes: dict[int, int] = {}
    for request in requests:
        sizes[request.group] = sizes.get(request.group, 0) + 1
    loads, home = [0] * processes, {}
    for group in sorted(sizes, key=lambda group: -sizes[group]):
        home[group] = loads.index(min(loads))
        loads[home[group]] += sizes[group]
    return [request for request in requests if home[request.group] == process]


def share(
    run: RunFn, requests: Sequence[Request], what: str = "the rollout"
) -> tuple[list[Trajectory], RolloutStats]:
    """The trajectories of all requests in their order, on every process; each runs its own part.

    `run` must not communicate with other processes. Trajectories travel uncompressed: about 20
    bytes a token, and 8 for each candidate that is recorded beside it.
    """
    if jax.process_count() == 1:
        return run(requests)
    with processes.together(what):
        part = run(deal(requests))
    parts = processes.gather_objects(part)
    by_sample = {(t.group, t.sample): t for trajectories, _ in parts for t in trajectories}
    stats = total_stats([stats for _, stats in parts])
    return [by_sample[request.group, request.sample] for request in requests], stats
