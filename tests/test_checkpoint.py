"""Checkpoints: everything comes back, on the devices it came from, or an error says why not."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gtpo_jax import learner, sharding
from gtpo_jax.checkpoint import CheckpointStore

ADAM = optax.adam(0.1)
AXES = {"w": ("embed", "mlp"), "b": ("mlp",)}


def make_state(optimizer=ADAM, width=8, mesh=None, seed=0):
    """A state after one step, so that the optimizer has something to remember."""
    rng = np.random.default_rng(seed)
    params = {
        "w": rng.standard_normal((4, width)).astype(np.float32),
        "b": rng.standard_normal(width).astype(np.float32),
    }
    if mesh is None:
        params = jax.device_put(params)
    else:
        params = jax.device_put(params, sharding.param_shardings(AXES, mesh))
    state = learner.init_state(params, optimizer)
    gradient = jax.tree.map(lambda p: 0.5 * p, params)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, params)
    return learner.TrainState(
        trained=optax.apply_updates(params, updates),
        optimizer_state=optimizer_state,
        step=state.step + 1,
    )


def blank(state):
    return jax.tree.map(jnp.zeros_like, state)


def saved(folder, *steps, state=None, **arguments):
    """A store whose checkpoints are on disk."""
    store = CheckpointStore(folder, **arguments)
    for step in steps:
        store.save(step, make_state(seed=step) if state is None else state)
    store.wait()
    return store


def test_newest_checkpoint_comes_back_whole(tmp_path):
    saved(tmp_path, 3, 7).close()
    with CheckpointStore(tmp_path) as store:
        assert store.latest_step == 7
        step, state = store.restore(blank(make_state()))
    assert step == 7
    chex.assert_trees_all_equal(state, make_state(seed=7))
    assert int(state.optimizer_state[0].count) == int(state.step) == 1


def test_state_on_a_mesh_comes_back_to_its_places(tmp_path):
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    state = make_state(mesh=mesh)
    with saved(tmp_path, 1, state=state) as store:
        _, restored = store.restore(blank(state))
        params = store.restore_params(blank(state.params))
        # Also onto other devices than it was saved from.
        moved = store.restore_params(blank(make_state().params))
    for result, expected in ((restored, state), (params, state.params)):
        chex.assert_trees_all_equal(jax.device_get(result), jax.device_get(expected))
        places = jax.tree.map(lambda x: x.sharding, (result, blank(expected)))
        assert places[0] == places[1]
    chex.assert_trees_all_equal(jax.device_get(moved), jax.device_get(state.params))


def test_checkpoint_holds_no_frozen_part(tmp_path):
    whole, optimizer = make_state().params, optax.adam(0.1)
    state = learner.init_state(whole, optimizer, trained=("b",))
    other = learner.init_state(jax.tree.map(lambda x: x + 1, whole), optimizer, trained=("b",))
    with saved(tmp_path, 1, state=state) as store:
        assert "w" not in store._saved(1)["params"]
        _, restored = store.restore(other)
    chex.assert_trees_all_equal(restored.trained, state.trained)
    chex.assert_trees_all_equal(restored.frozen, other.frozen)


def test_parameters_alone_serve_another_optimizer(tmp_path):
    with saved(tmp_path, 2) as store:
        params = store.restore_params(blank(make_state().params))
    chex.assert_trees_all_equal(params, make_state(seed=2).params)


def test_saved_state_may_be_donated_at_once(tmp_path):
    state = make_state()
    expected = jax.device_get(state)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    with CheckpointStore(tmp_path) as store:
        store.save(1, state)
        overwrite(state)
        _, restored = store.restore(blank(make_state()))
    chex.assert_trees_all_equal(jax.device_get(restored), expected)


def test_only_the_newest_are_kept(tmp_path):
    saved(tmp_path, 1, 2, 3, keep=2).close()
    kept = {path.name for path in tmp_path.iterdir() if path.name.isdigit()}
    assert kept == {"2", "3"}


def test_saving_a_step_twice_keeps_the_first(tmp_path):
    with saved(tmp_path, 5) as store:
        store.save(5, make_state(seed=1))
        store.wait()
        _, restored = store.restore(blank(make_state()))
    chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(make_state(seed=5)))


def test_half_written_checkpoint_is_not_the_newest(tmp_path):
    # Invariant 8: a killed save leaves a folder under a temporary name.
    saved(tmp_path, 1).close()
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    with CheckpointStore(tmp_path) as store:
        assert store.latest_step == 1


def test_missing_checkpoint_is_an_error(tmp_path):
    # T-91: never a silent fresh start.
    with CheckpointStore(tmp_path) as store:
        assert store.latest_step is None
        with pytest.raises(ValueError, match=r"no checkpoint in .* to resume from"):
            store.restore(make_state())
        with pytest.raises(ValueError, match=r"no checkpoint in .*; train one"):
            store.restore_params(make_state().params)


@pytest.mark.parametrize(
    "template",
    [
        {"width": 6},
        {"optimizer": optax.sgd(0.1, momentum=0.9)},
    ],
    ids=["other_shapes", "other_optimizer"],
)
def test_checkpoint_of_another_model_is_an_error(tmp_path, template):
    with (
        saved(tmp_path, 4) as store,
        pytest.raises(
            ValueError, match=r"checkpoint 4 in .* does not fit this model and optimizer"
        ),
    ):
        store.restore(make_state(**template))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("shape", r"b is \(8,\) there and \(6,\) here"),
        ("missing", r"head is absent there and \(3,\) here"),
        ("extra", r"b is \(8,\) there and absent here"),
    ],
)
def test_parameters_of_another_model_are_an_error(tmp_path, change, named):
    params = make_state(width=6 if change == "shape" else 8).params
    if change == "missing":  # the model has a parameter that the checkpoint lacks
        params = params | {"head": jnp.zeros(3)}
    if change == "extra":
        del params["b"]
    with (
        saved(tmp_path, 4) as store,
        pytest.raises(ValueError, match=rf"checkpoint 4 in .* does not fit this model: .* {named}"),
    ):
        store.restore_params(params)
