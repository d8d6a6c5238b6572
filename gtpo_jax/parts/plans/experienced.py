"""Experiences in the prompt (Training-Free GRPO, arXiv 2510.08191)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

from gtpo_jax.maths import checks
from gtpo_jax.parts.plans.moment import NOW, HostedPlan, Moment, Need, Service
from gtpo_jax.parts.plans.plan import Episodes, Plan
from gtpo_jax.parts.plans.texts import check_template, fill, said, shortened
from gtpo_jax.types import Problem, Request, Trajectory


class Edit(NamedTuple):
    """A change of the list of experiences."""

    kind: Literal["add", "modify", "delete", "keep"]
    text: str = ""  # of an experience that is added or modified
    index: int = 0  # of one that is modified, deleted or kept


Summarize = Callable[[Problem, Sequence[Trajectory], Sequence[str]], Sequence[Edit]]
"""`(problem, group, experiences) → edits`: the lesson of a group of unequal outcomes."""


class Experiences(Protocol):
    """The list of experiences, which the host keeps."""

    def texts(self, step: int) -> Sequence[str]:
        """The experiences when a step begins: those of all steps before it."""
        ...

    def edit(self, step: int, group: int, edits: Sequence[Edit]) -> None:
        """Records the edits of a group; they take effect in the next step."""
        ...


EXPERIENCES = Service(
    "experiences",
    "keeps the list of experiences",
    "`rollout.services.ExperienceFile` keeps it in a file, as `launch.train` does in the folder of"
    " the run",
)

WITH_EXPERIENCES = "{question}\n\nLessons of earlier problems:\n{experiences}"


def edited(texts: Sequence[str], edits: Iterable[Edit], *, most: int) -> list[str]:
    """The list after edits, which count from the list they were made for; the oldest leave when it
    is longer than `most`.

    An experience that is in the list already is not added. An index that the list does not have is
    ignored, since a summarizer may be wrong.
    """
    kept: list[str | None] = list(texts)
    added: list[str] = []
    for edit in edits:
        if edit.kind == "add":
            added.append(edit.text)
        elif edit.kind in ("modify", "delete") and 0 <= edit.index < len(kept):
            kept[edit.index] = edit.text if edit.kind == "modify" else None
    merged = [text for text in [*kept, *added] if text]
    return list(dict.fromkeys(merged))[-most:]


def extract(
    problem: Problem, group: Sequence[Trajectory], experiences: Sequence[str]
) -> list[Edit]:
    """The first line of the shortest success that no failure has, as a new experience.

    Deterministic and without a model: it stands in for a language model that summarizes.
    """
    del problem, experiences
    right = [lines(t) for t in group if t.included and t.success]
    wrong = {line for t in group if t.included and not t.success for line in lines(t)}
    shortest = min(right, key=lambda found: (sum(map(len, found)), found), default=[])
    telling = [line for line in shortest if line not in wrong]
    return [Edit("add", shortened(telling[0], 160))] if telling else []


def lines(trajectory: Trajectory) -> list[str]:
    """The lines that a trajectory wrote."""
    written = [line.strip() for turn in trajectory.turns for line in said(turn).splitlines()]
    return [line for line in written if line]


def experienced(
    *, summarize: Summarize = extract, template: str = WITH_EXPERIENCES, most: int = 20
) -> Plan:
    """Independent samples whose prompt holds the experiences of the steps before.

    A group of unequal outcomes is summarized into edits of the list, which has at most `most`
    entries. Without experiences the prompt is the question.
    """
    checks.check_positive("most", most, hint="it counts the experiences of a prompt")
    check_template("template", template, "question", "experiences")

    def episodes(problem: Problem, group: int, size: int, moment: Moment = NOW) -> Episodes:
        kept: Experiences = moment.ask(EXPERIENCES)
        texts = list(kept.texts(moment.step))
        numbered = "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))
        question = fill(template, question=problem.question, experiences=numbered)
        members = yield [
            Request(problem=problem, group=group, sample=n, question=question if texts else None)
            for n in range(size)
        ]
        if len({t.success for t in members if t.included}) == 2:
            kept.edit(moment.step, group, list(summarize(problem, members, texts)))
        return members

    return HostedPlan(episodes=episodes, needs=(Need(EXPERIENCES, {"most": most}),))
