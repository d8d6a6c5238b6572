"""The train state: parameters, optimizer state and step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from gtpo_jax.devices import sharding
from gtpo_jax.types import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """The state that an update reads and writes. `trained` and `frozen` are parts of the parameters
    by name.
    """

    trained: Params
    frozen: dict[str, Params] = dataclasses.field(default_factory=dict)
    optimizer_state: optax.OptState
    step: jax.Array  # int32, number of updates done
    method: dict[str, Any] = dataclasses.field(default_factory=dict)
    """States of the parts of the method; `{}` if they have none."""

    @property
    def params(self) -> Params:
        """Parameters of the model: frozen and trained parts together."""
        return {**self.frozen, **self.trained}


def init_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    *,
    trained: Sequence[str] | None = None,
) -> TrainState:
    """The state at step 0, with a fresh optimizer state, placed where the parameters are.

    `trained` names the parts of the parameters that updates change; None: all. The optimizer sees
    only these: it keeps no state for the others and does not count them in gradient norms.
    Traced parameters are not placed, so `jax.eval_shape` gives the shapes of the state.
    """
    names = params.keys() if trained is None else trained
    if not set(names) <= params.keys():
        raise ValueError(f"trained must name parts among {sorted(params)}, got {tuple(names)}")
    parts = {name: params[name] for name in names}
    state = TrainState(
        trained=parts,
        frozen={name: part for name, part in params.items() if name not in parts},
        optimizer_state=optimizer.init(parts),
        step=jnp.zeros((), jnp.int32),
    )
    placements = [leaf.sharding for leaf in jax.tree.leaves(params) if _is_placed(leaf)]
    if not placements:
        return state
    # Counters start uncommitted on one device. The first update would place them on the mesh, and
    # the second would be compiled again for the new placement.
    mesh = getattr(placements[0], "mesh", None)
    home = sharding.replicated(mesh) if isinstance(mesh, jax.sharding.Mesh) else placements[0]

    def place(leaf: jax.Array) -> jax.Array:
        placed = isinstance(leaf.sharding, jax.sharding.NamedSharding)
        return leaf if placed else jax.device_put(leaf, home)

    return jax.tree.map(place, state)


def changing(state: TrainState) -> dict[str, Any]:
    """The fields of a state that an update changes, by name."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in fields.items() if name != "frozen"}


def nonfinite_names(state: TrainState, nonfinite: Sequence[bool] | np.ndarray) -> list[str]:
    """Paths of the parameters for which the metric `nonfinite` of an update is True."""
    paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(state.trained))
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path in paths)
    return [name for name, bad in zip(names, nonfinite, strict=True) if bad]


def _is_placed(leaf: jax.Array | np.ndarray) -> bool:
    return isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
