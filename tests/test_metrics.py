"""The metrics file: what is read back, also after a run was killed."""

import math

import pytest

from gtpo_jax.metrics import MetricsWriter, read_metrics


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
    # Invariant 8: killed after step 5, resumed from the checkpoint of step 3.
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
