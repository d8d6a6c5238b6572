"""Parquet and Hugging Face data sets: real files, and never a call over the network unasked."""

import pathlib
import socket
import sys
import time

import pytest

from gtpo_jax.tasks.mappings import MAPPINGS
from gtpo_jax.tasks.reading import read_problems

ROWS = [{"question": f"q{i}", "answer": str(i)} for i in range(3)]


@pytest.fixture
def datasets():
    # Not above: collecting the tests, of which each process takes its share, would be slower.
    return pytest.importorskip("datasets", reason="needs the extra `tasks`")


@pytest.fixture(autouse=True)
def no_network(datasets, tmp_path, monkeypatch):
    """Records every attempt to look up or reach a machine; caches are the test's own."""
    attempts = []

    def refuse(*arguments, **_):
        attempts.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    yield attempts
    datasets.enable_progress_bars()


def write(path, rows=ROWS):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra `tasks`")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `tasks`")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def answers(source, *arguments):
    return [entry.problem.answer for entry in read_problems(source, *arguments).entries]


def test_parquet_is_read_with_row_numbers(tmp_path):
    path = write(tmp_path / "mine.parquet")
    entries = read_problems(path).entries
    assert [entry.problem.id for entry in entries] == ["mine-1", "mine-2", "mine-3"]
    assert [entry.problem.answer for entry in entries] == ["0", "1", "2"]
    write(path, [*ROWS, {"question": None, "answer": "1"}])
    with pytest.raises(ValueError, match=r"mine\.parquet, row 4: `question` must be .* got None"):
        read_problems(path)


def test_nested_columns_keep_their_form(tmp_path):
    rows = [
        {
            "id": "a",
            "question": "What?",
            "choices": {"label": ["A", "B"], "text": ["one", "two"]},
            "answerKey": "B",
        }
    ]
    [entry] = read_problems(write(tmp_path / "qa.parquet", rows), MAPPINGS["commonsenseqa"]).entries
    assert entry.problem.choices == ("one", "two") and entry.problem.answer == "B"


def test_parquet_that_is_none_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read problems from .*none\.parquet"):
        read_problems(tmp_path / "none.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"cannot read problems from .*broken\.parquet"):
        read_problems(tmp_path / "broken.parquet")


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    path = write(tmp_path / "mine.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(
        ValueError, match=r"needs the package pyarrow: pip install -e '\.\[tasks\]'"
    ):
        read_problems(path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ValueError, match=r"needs the package datasets: pip install -e '\.\[tasks\]'"
    ):
        read_problems("openai/gsm8k:main:test")


def test_saved_data_sets_are_read(datasets, tmp_path, no_network):
    whole = datasets.DatasetDict(
        train=datasets.Dataset.from_list(ROWS), test=datasets.Dataset.from_list(ROWS[:1])
    )
    whole.save_to_disk(tmp_path / "saved")
    whole["train"].save_to_disk(tmp_path / "alone")
    assert answers(f"{tmp_path}/saved:test") == ["0"]
    assert answers(f"{tmp_path}/saved:train") == answers(f"{tmp_path}/alone") == ["0", "1", "2"]
    entries = read_problems(f"{tmp_path}/saved:train").entries
    assert [entry.problem.id for entry in entries][:1] == ["saved-train-1"]
    with pytest.raises(ValueError, match="has the splits train, test, none was asked for"):
        read_problems(f"{tmp_path}/saved")
    with pytest.raises(ValueError, match="has the splits train, test, got 'dev'"):
        read_problems(f"{tmp_path}/saved:dev")
    with pytest.raises(ValueError, match="has no config 'main'"):
        read_problems(f"{tmp_path}/saved:main:test")
    assert not no_network


def clone(folder):
    """A clone of a data set with two configs."""
    write(folder / "main" / "train-00000-of-00001.parquet")
    write(folder / "main" / "test-00000-of-00001.parquet", ROWS[:1])
    write(folder / "hard" / "test-00000-of-00001.parquet", ROWS[2:])
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - {split: train, path: main/train-*}\n  - {split: test, path: main/test-*}\n"
        "- config_name: hard\n  data_files:\n  - {split: test, path: hard/test-*}\n---\n"
    )
    return folder


@pytest.mark.slow
def test_clone_is_read_by_config_and_split(tmp_path, monkeypatch, no_network):
    folder = clone(tmp_path / "sums")
    assert answers(f"{folder}:main:train") == ["0", "1", "2"]
    assert answers(f"{folder}:hard:test") == ["2"]
    with pytest.raises(ValueError, match=r"sums.*main.*hard") as raised:
        read_problems(f"{folder}:test")
    assert "\n" not in str(raised.value)
    monkeypatch.chdir(folder)
    assert read_problems(".:hard:test").entries[0].problem.id == "sums-hard-test-1"
    assert not no_network


def test_name_that_is_not_cached_is_not_looked_up(no_network):
    with pytest.raises(ValueError, match="if it is on the hub, write hub:openai/gsm8k") as raised:
        read_problems("openai/gsm8k:main:test")
    assert "\n" not in str(raised.value) and not no_network


def test_cached_data_set_is_read_offline(datasets, tmp_path, no_network):
    """The cache has the layout that the package writes after a download."""
    builder = datasets.load_dataset_builder(str(clone(tmp_path / "sums")), "main")
    builder.download_and_prepare()
    made = pathlib.Path(builder.cache_dir)
    place = tmp_path / "cache" / "openai___gsm8k" / "main" / "0.0.0" / "abc"
    place.parent.mkdir(parents=True)
    made.rename(place)
    for file in place.glob("sums-*"):
        file.rename(place / file.name.replace("sums-", "gsm8k-"))
    info = (place / "dataset_info.json").read_text()
    (place / "dataset_info.json").write_text(info.replace('"sums"', '"gsm8k"'))
    assert answers("openai/gsm8k:main:train") == ["0", "1", "2"]
    assert not no_network


def test_hub_is_asked_only_by_its_prefix(datasets, no_network, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with pytest.raises(ValueError, match="cannot read the data set openai/gsm8k"):
        read_problems("hub:openai/gsm8k:main:test")
    assert no_network
    assert not huggingface_hub.constants.HF_HUB_OFFLINE and not datasets.config.HF_HUB_OFFLINE
