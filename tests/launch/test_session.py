"""Where compiled programs are kept, whoever runs and whatever home there is."""

import pwd

import pytest

from launch.run import session

NAMES = ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ({"HOME": "TMP/home"}, "TMP/home/.cache/gtpo_jax/jax"),
        ({"HOME": "TMP/home", "XDG_CACHE_HOME": ""}, "TMP/home/.cache/gtpo_jax/jax"),
        ({"HOME": "/proc", "XDG_CACHE_HOME": "TMP/cache"}, "TMP/cache/gtpo_jax/jax"),
        ({"HOME": "/proc"}, None),
        ({"HOME": "TMP/file"}, None),
        ({"HOME": "home"}, None),
        ({"HOME": "/proc", "JAX_COMPILATION_CACHE_DIR": "TMP/own"}, "TMP/own"),
    ],
)
def test_programs_are_kept_where_that_is_possible(given, folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value.replace("TMP", str(tmp_path)))
    expected = folder and folder.replace("TMP", str(tmp_path))
    assert session.compilation_cache_folder() == expected


def test_user_without_a_home_keeps_none(monkeypatch, tmp_path):
    """A container's user whom no list of users has."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    monkeypatch.chdir(tmp_path)
    assert session.compilation_cache_folder() is None
    assert not list(tmp_path.iterdir())
