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
    requests: Sequence[Request],
    *,
    processes: int | None = None,
    process: int | None = None,
    home: dict[int, int] | None = None,
) -> list[Request]:
    """The requests of one process, by default of this one, in their order.

    A group goes to one process whole: the largest group first, each to the process with the fewest
    trajectories so far. So two processes differ by no more than the largest group. `home` maps
    groups to the processes that have had them, where they stay; new groups are added to it.
    """
    processes = jax.process_count() if processes is None else processes
    process = jax.process_index() if process is None else process
    if not 0 <= process < processes:
        raise ValueError(f"process {process} is none of {processes} processes; they count from 0")
    sizes: dict[int, int] = {}
    for request in requests:
        sizes[request.group] = sizes.get(request.group, 0) + 1
    loads, home = [0] * processes, {} if home is None else home
    for group in sorted(sizes, key=lambda group: (group not in home, -sizes[group])):
        home.setdefault(group, loads.index(min(loads)))
        loads[home[group]] += sizes[group]
    return [request for request in requests if home[request.group] == process]


class Shared:
    """`share` for the rounds of one collection: a group stays with the process that has its
    caches.
    """

    def __init__(self, run: RunFn):
        self.run = run
        self.home: dict[int, int] = {}

    def __call__(self, requests: Sequence[Request]) -> tuple[list[Trajectory], RolloutStats]:
        return share(self.run, requests, home=self.home)


def share(
    run: RunFn,
    requests: Sequence[Request],
    what: str = "the rollout",
    *,
    home: dict[int, int] | None = None,
) -> tuple[list[Trajectory], RolloutStats]:
    """The trajectories of all requests in their order, on every process; each runs its own part.

    `run` must not communicate with other processes. Trajectories travel uncompressed: about 20
    bytes a token. `home` as in `deal`.
    """
    if jax.process_count() == 1:
        return run(requests)
    with processes.together(what):
        part = run(deal(requests, home=home))
    parts = processes.gather_objects(part)
    by_sample = {(t.group, t.sample): t for trajectories, _ in parts for t in trajectories}
    stats = total_stats([stats for _, stats in parts])
    return [by_sample[request.group, request.sample] for request in requests], stats
