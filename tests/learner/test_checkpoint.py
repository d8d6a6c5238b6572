"""Checkpoints: everything is restored, on the devices it came from, or an error says why not."""

import errno
import json
import logging
import re
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gtpo_jax import learner
from gtpo_jax.devices import sharding
from gtpo_jax.learner.checkpoint import (
    FILES,
    CheckpointStore,
    SaveError,
    has_checkpoint,
    newest_step,
    saved_steps,
)

pytestmark = pytest.mark.slow

ADAM = optax.adam(0.1)
AXES = {"w": ("embed", "mlp"), "b": ("mlp",)}


def make_state(optimizer=ADAM, width=8, mesh=None, seed=0):
    """A state after one step, so that the optimizer has some memory."""
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


def saved(folder, *steps, state=None, store=CheckpointStore, **arguments):
    """A store whose checkpoints are on disk."""
    store = store(folder, **arguments)
    for step in steps:
        store.save(step, make_state(seed=step) if state is None else state)
    store.wait()
    return store


def warnings_of(caplog):
    """Our own records; asyncio tells of futures that TensorStore left, whenever they are freed."""
    return [record for record in caplog.records if record.name.startswith("gtpo_jax")]


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
    # A killed save leaves a folder under a temporary name.
    saved(tmp_path, 1).close()
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    with CheckpointStore(tmp_path) as store:
        assert store.latest_step == 1


def test_leftover_of_a_killed_save_is_written_over(tmp_path):
    leftover = tmp_path / "2.orbax-checkpoint-tmp"
    leftover.mkdir()
    (leftover / "junk").touch()
    with saved(tmp_path, 2) as store:
        step, state = store.restore(blank(make_state()))
    assert step == 2 and not leftover.exists()
    chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(make_state(seed=2)))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Checkpoints 3 and 7, to be copied."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    saved(folder, 3, 7).close()
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


DAMAGES = {
    "data cut": ("state/d/*", cut, r"state/d/\w+ has [\d,]+ bytes of [\d,]+"),
    "data missing": ("state/d/*", remove, r"state/d/\w+ is missing"),
    "manifest empty": ("state/manifest.ocdbt", empty, "state/manifest.ocdbt has 0 bytes of 113"),
    "tree missing": ("state/_METADATA", remove, "state/_METADATA is missing"),
    "all missing": ("state", shutil.rmtree, "is missing"),
    "list cut": (FILES, cut, f"{FILES} is no list of files"),
}


@pytest.mark.parametrize(("path", "damage", "named"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint_does_not_count(two, tmp_path, caplog, path, damage, named):
    folder = shutil.copytree(two, tmp_path / "checkpoints")
    [target, *_] = (folder / "7").glob(path)
    damage(target)
    assert has_checkpoint(folder) and newest_step(folder) == 3
    template = blank(make_state())
    with CheckpointStore(folder) as store:
        assert store.latest_step == 3
        params = store.restore_params(template.params)
        assert sorted(path.name for path in folder.iterdir()) == ["3", "7"], (
            "reading changes nothing"
        )
        step, state = store.restore(template)
        assert sorted(path.name for path in folder.iterdir()) == ["3", "7.damaged"]
        store.save(7, make_state(seed=8))  # the step is done again
        store.wait()
        assert store.latest_step == 7
    assert step == 3
    chex.assert_trees_all_equal((state, params), (make_state(seed=3), make_state(seed=3).params))
    read, restored = [
        record.getMessage() for record in warnings_of(caplog) if "damaged" in record.msg
    ]
    assert f"checkpoint 7 in {folder} is damaged" in read and "step 3 is used instead" in read
    assert "it is now 7.damaged, and the run goes on from step 3" in restored
    for message in (read, restored):
        assert re.search(named, message) and "\n" not in message


# TensorStore reads on in threads of its own after the first error.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_checkpoint_of_an_earlier_version_counts_until_it_cannot_be_read(two, tmp_path, caplog):
    folder = shutil.copytree(two, tmp_path / "checkpoints")
    for step in ("3", "7"):
        (folder / step / FILES).unlink()
    with CheckpointStore(folder) as store:
        assert store.restore(blank(make_state()))[0] == 7
        assert not warnings_of(caplog)
        for path in (folder / "7" / "state" / "d").iterdir():
            cut(path)
        assert store.latest_step == 7, "sizes are not known"
    with CheckpointStore(folder) as store:
        assert store.restore(blank(make_state()))[0] == 3
    assert (folder / "7.damaged").is_dir() and len(warnings_of(caplog)) == 1


def test_second_damage_of_a_step_has_a_name_of_its_own(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / "checkpoints")
    (folder / "7.damaged").mkdir()
    (folder / "7" / FILES).write_text("")
    with CheckpointStore(folder) as store:
        store.restore(blank(make_state()))
    assert sorted(path.name for path in folder.iterdir()) == ["3", "7.damaged", "7.damaged-2"]


def test_without_a_whole_checkpoint_all_are_named_and_kept(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / "checkpoints")
    (folder / "3" / "state" / "_METADATA").unlink()
    (folder / "7" / "state" / "manifest.ocdbt").unlink()
    tried = (
        r"no whole checkpoint in .* \(step 7: state/manifest.ocdbt is missing; step 3:"
        r" state/_METADATA is missing\); bring one back"
    )
    with CheckpointStore(folder) as store:
        for ask in (
            lambda: store.restore(blank(make_state())),
            lambda: store.restore_params(make_state().params),
            lambda: store.latest_step,
            lambda: newest_step(folder),
            lambda: has_checkpoint(folder),
        ):
            with pytest.raises(ValueError, match=tried):
                ask()
    assert sorted(path.name for path in folder.iterdir()) == ["3", "7"]


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        ValueError("PERMISSION_DENIED: Error reading local file"),
        RuntimeError("RESOURCE_EXHAUSTED: out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_checkpoint_that_could_not_be_read_is_not_damaged(two, tmp_path, monkeypatch, error):
    folder = shutil.copytree(two, tmp_path / "checkpoints")

    def refuse(*_, **__):
        raise error

    with CheckpointStore(folder) as store:
        monkeypatch.setattr(store._manager, "restore", refuse)
        with pytest.raises(type(error)) as raised:
            store.restore(blank(make_state()))
    assert raised.value is error
    assert saved_steps(folder) == {7: None, 3: None}


class FullDisk(CheckpointStore):
    """A store whose disk is full from the second save on, at the last file of a checkpoint."""

    def _list_files(self):
        if self._begun != 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        super()._list_files()


@pytest.mark.parametrize("notice", ["check", "wait", "close", "save"])
def test_failed_save_is_told_once_and_does_not_count(tmp_path, notice):
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    store, state = FullDisk(tmp_path), make_state()
    store.save(1, state)
    store.save(2, state)
    told = (
        r"checkpoint 2 could not be saved in .*: No space left on device; the last good one is"
        r" step 1$"
    )
    with pytest.raises(SaveError, match=told):
        while notice == "check":
            store.check()
        getattr(store, notice)(*((3, state) if notice == "save" else ()))
    store.close()
    assert saved_steps(tmp_path) == {1: None}
    assert (tmp_path / "2.orbax-checkpoint-tmp").exists()


def test_first_save_that_fails_says_that_there_is_no_other(tmp_path):
    with pytest.raises(SaveError, match=r"checkpoint 2 .*; there is no other one"):
        saved(tmp_path, 2, store=FullDisk)


def test_list_tells_the_size_of_every_file_of_the_state(two):
    sizes = json.loads((two / "7" / FILES).read_text())
    files = [path for path in (two / "7" / "state").rglob("*") if path.is_file()]
    assert sizes == {str(p.relative_to(two / "7")): p.stat().st_size for p in files}
    assert any("/d/" in name for name in sizes)


def test_missing_checkpoint_is_an_error(tmp_path):
    # Never a silent fresh start.
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
