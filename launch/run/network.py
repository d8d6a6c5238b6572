"""The network of a run: the decoder, with adapters if the config has them.

A phase of a run saves trained parameters step by step under `checkpoints`. Parameters that adapters
are added to do not change and are saved once, under `frozen`.
"""

from __future__ import annotations

import functools
import pathlib
from typing import TYPE_CHECKING

import jax
from jax.sharding import Mesh

from gtpo_jax.devices import sharding
from gtpo_jax.learner.checkpoint import CheckpointStore, has_checkpoint
from gtpo_jax.types import Params
from models import decoder
from models.config import ModelConfig

if TYPE_CHECKING:
    from models.lora import LoraConfig

CHECKPOINTS, FROZEN = "checkpoints", "frozen"


class Network:
    """A decoder on a mesh as pure functions: `forward`, and `init` from a key.

    `shardings` are the placements of its parameters, `trained` the names of the parts that updates
    change (None: all), and `seed` is the seed of random parameters.
    """

    def __init__(
        self, config: ModelConfig, mesh: Mesh, *, lora: LoraConfig | None = None, seed: int = 0
    ):
        self.config, self.lora, self.seed = config, lora, seed
        if lora is None:
            self.forward = decoder.forward_fn(config, mesh=mesh)
            self.init = functools.partial(decoder.init_params, config)
            axes, self.trained = decoder.logical_axes(config), None
        else:
            from models import lora as lora_lib

            def init(key: jax.Array) -> Params:
                base, adapters = jax.random.split(key)
                return lora_lib.add(
                    decoder.init_params(config, base),
                    lora_lib.init_adapters(config, lora, adapters),
                )

            self.forward = lora_lib.forward_fn(config, lora, mesh=mesh)
            self.init = init
            axes, self.trained = lora_lib.logical_axes(config, lora), (lora_lib.ADAPTER,)
        self.shardings = sharding.param_shardings(axes, mesh)

    @property
    def abstract(self) -> Params:
        """Shape, dtype and placement of every parameter."""
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            jax.eval_shape(self.init, jax.random.key(0)),
            self.shardings,
        )

    def random(self) -> Params:
        """Random parameters, placed on the mesh."""
        return jax.jit(self.init, out_shardings=self.shardings)(jax.random.key(self.seed))

    def adapted(self, decoder_params: Params) -> Params:
        """Parameters of this network from those of its decoder, with fresh adapters."""
        if self.lora is None:
            return decoder_params
        from models import lora

        init = functools.partial(lora.init_adapters, self.config, self.lora)
        places = self.shardings[lora.ADAPTER]
        return lora.add(
            decoder_params, jax.jit(init, out_shardings=places)(jax.random.key(self.seed))
        )

    def merged(self, params: Params) -> Params:
        """Parameters of the decoder alone, with the adapters multiplied in."""
        if self.lora is None:
            return params
        from models import lora

        merge = functools.partial(lora.merge, lora=self.lora)
        return jax.jit(merge, out_shardings=self.shardings[lora.BASE])(params)

    def load(self, phase: pathlib.Path, step: int | None = None) -> Params:
        """Parameters from a checkpoint of a phase of a run, by default from the newest.

        If this network has adapters and the checkpoint has none, fresh ones are added. Raises
        ValueError for the opposite case, and for other adapters or shapes.
        """
        abstract, frozen = self.abstract, has_checkpoint(phase / FROZEN)
        if self.lora is None:
            if frozen:
                raise ValueError(
                    f"{phase} trained adapters and this config has none; give the options --lora.*"
                    f" in {phase / 'config.json'}, or export the run to merge them"
                )
            return _restore(phase / CHECKPOINTS, abstract, step)
        from models import lora

        if not frozen:
            return self.adapted(_restore(phase / CHECKPOINTS, abstract[lora.BASE], step))
        return {
            **_restore(phase / FROZEN, {lora.BASE: abstract[lora.BASE]}),
            **_restore(phase / CHECKPOINTS, {lora.ADAPTER: abstract[lora.ADAPTER]}, step),
        }


def _restore(folder: pathlib.Path, template: Params, step: int | None = None) -> Params:
    with CheckpointStore(folder) as store:
        return store.restore_params(template, step=step)
