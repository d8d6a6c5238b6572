"""Builds the problem source of a run from its task settings."""

from __future__ import annotations

from configs.methods import import_path
from configs.schema import RunConfig, TaskConfig
from gtpo_jax.tasks import mappings, reading, stream
from gtpo_jax.tasks.generated import GeneratedTask
from gtpo_jax.tasks.source import Noise, ProblemSource


def make_source(config: RunConfig) -> ProblemSource:
    """The problem source of a config; all problems are read and checked."""
    task = config.task
    noise = Noise(skip_tool=task.skip_tool, unclosed_call=task.unclosed_call, slip=task.slip)
    if not task.train_file:
        for field in (
            *("eval_file", "mapping", "fields"),
            *("eval_mapping", "eval_fields", "drop_overlap"),
            *("other_numbers", "other_words"),
        ):
            if getattr(task, field) != getattr(TaskConfig, field):
                raise ValueError(f"task.{field} needs task.train_file")
        return GeneratedTask(
            seed=config.seed, families=task.families, level=task.level, noise=noise
        )
    if task.eval_file is None:
        raise ValueError("task.train_file needs task.eval_file, to evaluate on")
    if task.level != TaskConfig.level:
        raise ValueError("task.level applies to generated problems; leave out task.train_file")
    names = task.mapping * len(task.train_file) if len(task.mapping) == 1 else task.mapping
    if len(names) != len(task.train_file):
        raise ValueError(
            f"task.mapping must name one mapping, or one for each of {len(task.train_file)}"
            f" training files, got {len(task.mapping)}"
        )
    if task.eval_mapping is None and len(set(names)) > 1:
        raise ValueError("with several task.mapping, task.eval_mapping is required")
    fields = _field_names("fields", task.fields)
    parts = [
        reading.read_problems(source, make_mapping(name), fields=fields)
        for source, name in zip(task.train_file, names, strict=True)
    ]
    evaluation = reading.read_problems(
        task.eval_file,
        make_mapping(task.eval_mapping or names[0]),
        fields=fields
        if task.eval_fields is None
        else _field_names("eval_fields", task.eval_fields),
    )
    joined = reading.join([part.entries for part in parts])
    train = reading.keep_apart(joined, evaluation.entries, drop=task.drop_overlap)
    notes = [note for part in (*parts, evaluation, train) for note in part.notes]
    return stream.entries_task(
        train.entries,
        evaluation.entries,
        seed=config.seed,
        noise=noise,
        other_numbers=task.other_numbers,
        other_words=task.other_words,
        notes=notes,
    )


def make_mapping(name: str) -> mappings.Mapping:
    """The mapping from records to problems with this name, or a function of your own by path."""
    if ":" in name:
        return mappings.Mapping(
            convert=import_path(name, "task.mapping"), expects=f"the fields that {name} reads"
        )
    if name not in mappings.MAPPINGS:
        raise ValueError(
            f"there is no mapping {name!r} of problems; there are {', '.join(mappings.MAPPINGS)},"
            " and functions of your own as my.module:function"
        )
    return mappings.MAPPINGS[name]


def _field_names(option: str, pairs: tuple[str, ...]) -> dict[str, str]:
    """Field of a mapping → field of a file, from `question=Problem`."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise ValueError(f"task.{option} must be as question=Problem, got {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs)
