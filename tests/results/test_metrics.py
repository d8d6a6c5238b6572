"""The metrics file is read back, also after a run was killed; so are TensorBoard and wandb."""

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gtpo_jax.results import metrics as metrics_room
from gtpo_jax.results.metrics import MetricsWriter, read_metrics


def write(folder, steps, resume_step=0):
    with MetricsWriter(folder, resume_step=resume_step) as metrics:
        for step in steps:
            metrics.write(step, {"rollout/success": step / 10, "update/loss": -step})
        return metrics.path


def test_records_are_read_back_in_order(tmp_path):
    path = write(tmp_path / "run" / "train", [1, 2])
    assert read_metrics(path) == [
        {"step": 1, "rollout/success": 0.1, "update/loss": -1.0},
        {"step": 2, "rollout/success": 0.2, "update/loss": -2.0},
    ]
    assert any((tmp_path / "run" / "train" / "tensorboard").iterdir())


def test_record_is_on_disk_before_the_writer_is_closed(tmp_path):
    with MetricsWriter(tmp_path) as metrics:
        metrics.write(1, {"loss": 2})
        assert read_metrics(metrics.path) == [{"step": 1, "loss": 2.0}]


def test_resumed_file_drops_the_steps_that_are_done_again(tmp_path):
    # Killed after step 5, resumed from the checkpoint of step 3.
    write(tmp_path, range(1, 6))
    path = write(tmp_path, [4, 5, 6], resume_step=3)
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3, 4, 5, 6]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_fresh_start_drops_everything(tmp_path):
    write(tmp_path, range(1, 6))
    assert [record["step"] for record in read_metrics(write(tmp_path, [1]))] == [1]


@pytest.mark.parametrize("cut", [1, 10, 20])
def test_half_written_last_line_is_left_out(tmp_path, cut):
    path = write(tmp_path, [1, 2, 3])
    path.write_text(path.read_text()[:-cut])
    assert [record["step"] for record in read_metrics(path)] == [1, 2]
    # What goes on from there is whole again.
    write(tmp_path, [3, 4], resume_step=2)
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3, 4]


def test_missing_or_empty_file_has_no_records(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    (tmp_path / "metrics.jsonl").touch()
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_process_that_does_not_write_leaves_no_trace(tmp_path):
    with MetricsWriter(tmp_path / "run", resume_step=3, write=False) as metrics:
        metrics.write(1, {"loss": 2})
    assert not (tmp_path / "run").exists()


def test_number_that_is_none_survives(tmp_path):
    with MetricsWriter(tmp_path) as metrics:
        metrics.write(1, {"loss": math.nan})
    [record] = read_metrics(metrics.path)
    assert math.isnan(record["loss"])


def test_weights_and_biases_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"not installed: pip install -e '\.\[wandb\]'"):
        MetricsWriter(tmp_path, project="tests")


class Hosted:
    """A fake of Weights & Biases whose service has received the steps up to `reached`."""

    def __init__(self, reached=None):
        self.reached = reached
        self.opened, self.sent = [], []

    def Settings(self, **options):
        return options

    def init(self, **options):
        self.opened.append(options)
        return self

    @property
    def resumed(self):
        return self.reached is not None

    @property
    def starting_step(self):
        return (self.reached or 0) + 1

    def log(self, values, *, step):
        self.sent.append((step, values))

    def finish(self):
        pass


def write_hosted(folder, steps, resume_step=0, *, killed=False):
    """Writes the steps; one that is killed leaves no word of how far it came beside them."""
    with MetricsWriter(
        folder, resume_step=resume_step, project="tests", config={"seed": 1}
    ) as metrics:
        begun = (folder / "wandb.json").read_text()
        for step in steps:
            metrics.write(step, {"loss": step})
    if killed:
        (folder / "wandb.json").write_text(begun)


def hosted(monkeypatch, reached=None):
    fake = Hosted(reached)
    monkeypatch.setattr(metrics_room, "import_wandb", lambda: fake)
    return fake


def test_resumed_run_is_the_same_one_and_sends_no_step_twice(tmp_path, monkeypatch):
    service = hosted(monkeypatch)
    write_hosted(tmp_path, range(1, 6), killed=True)
    write_hosted(tmp_path, [4], resume_step=3, killed=True)
    write_hosted(tmp_path, [4, 5, 6], resume_step=3)
    write_hosted(tmp_path, [7], resume_step=6)
    assert [step for step, _ in service.sent] == [1, 2, 3, 4, 5, 6, 7]
    assert service.sent[0][1] == {"loss": 1.0}
    [name] = {opened["id"] for opened in service.opened}
    assert json.loads((tmp_path / "wandb.json").read_text()) == {"id": name, "sent": 7}
    assert {opened["resume"] for opened in service.opened} == {"allow"}
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 8))


def test_service_says_itself_what_has_reached_it(tmp_path, monkeypatch):
    hosted(monkeypatch)
    write_hosted(tmp_path, range(1, 6), killed=True)
    service = hosted(monkeypatch, reached=4)  # it was killed before step 5 was sent
    write_hosted(tmp_path, [4, 5, 6], resume_step=3)
    assert [step for step, _ in service.sent] == [5, 6]


def test_run_that_begins_anew_is_another_one(tmp_path, monkeypatch):
    service = hosted(monkeypatch)
    write_hosted(tmp_path, [1, 2])
    write_hosted(tmp_path, [1, 2])
    assert len({opened["id"] for opened in service.opened}) == 2
    assert [step for step, _ in service.sent] == [1, 2, 1, 2]


def test_process_that_does_not_write_opens_no_hosted_run(tmp_path, monkeypatch):
    service = hosted(monkeypatch)
    with MetricsWriter(tmp_path / "run", write=False, project="tests") as metrics:
        metrics.write(1, {"loss": 2})
    assert service.opened == [] and not (tmp_path / "run").exists()


OFFLINE = """
import sys
from gtpo_jax.results.metrics import MetricsWriter

for first, last, resume_step in ((1, 5, 0), (4, 7, 3)):
    with MetricsWriter(
        sys.argv[1], resume_step=resume_step, project="tests", config={"train": {"steps": 7}}
    ) as metrics:
        for step in range(first, last + 1):
            metrics.write(step, {"rollout/success": step / 10, "update/loss": -step})
"""


def transactions(path):
    """The records of a file that Weights & Biases writes offline: a log in blocks of 32 KiB."""
    data, at, record = path.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


@pytest.mark.slow
def test_offline_run_of_weights_and_biases_holds_every_step_once(tmp_path):
    pytest.importorskip("wandb", reason="needs the extra `wandb`")
    ours = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    ours["PYTHONPATH"] = str(Path(__file__).parents[2])
    folder = tmp_path / "run" / "train"
    subprocess.run([sys.executable, "-c", OFFLINE, str(folder)], env=ours, check=True, timeout=120)
    read = """
import json, sys
from wandb.proto import wandb_internal_pb2
for line in sys.stdin:
    record = wandb_internal_pb2.Record()
    record.ParseFromString(bytes.fromhex(line))
    kind = record.WhichOneof("record_type")
    if kind == "history":
        items = {".".join(i.nested_key) or i.key: json.loads(i.value_json)
                 for i in record.history.item}
        print(json.dumps([kind, record.history.step.num, items]))
    if kind == "run":
        print(json.dumps([kind, record.run.run_id, record.run.project]))
"""
    files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    lines = "".join(f"{record.hex()}\n" for path in files for record in transactions(path))
    shown = subprocess.run(
        [sys.executable, "-c", read], input=lines, env=ours, check=True, text=True, capture_output=1
    )
    told = [json.loads(line) for line in shown.stdout.splitlines()]
    [name] = {run for kind, run, _ in told if kind == "run"}
    assert name == json.loads((folder / "wandb.json").read_text())["id"] and len(files) == 2
    history = {step: items for kind, step, items in told if kind == "history"}
    steps = [step for kind, step, _ in told if kind == "history"]
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    assert history[6]["rollout/success"] == 0.6 and history[7]["update/loss"] == -7.0
