"""The services that a run provides to the plan of its method."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from gtpo_jax import rollout
from gtpo_jax.parts.plans import HostedPlan, Moment, Plan, at_moment
from gtpo_jax.parts.plans.experienced import EXPERIENCES
from gtpo_jax.parts.plans.swarm import SWARM, Shared
from gtpo_jax.rollout.services import (
    ExperienceFile,
    FolderStore,
    HttpStore,
    SharedGroups,
    of_dialogue,
    turn_text,
)
from launch.run import cluster, display
from launch.run.session import Session

FOLDER = "plan"
"""Folder of a phase with what a plan keeps."""


class Services:
    """The services of a training phase; files of a plan lie in `folder`."""

    def __init__(self, session: Session, folder: pathlib.Path):
        self.session, self.folder = session, folder
        self.plan = session.method.plan
        self.services: dict[str, Any] = of_dialogue(
            session.dialogue, observation_tokens=session.config.rollout.observation_tokens
        )
        makers = {EXPERIENCES.name: self._experiences, SWARM.name: self._swarm}
        for need in self.plan.needs if isinstance(self.plan, HostedPlan) else ():
            if need.service.name in makers:
                self.services[need.service.name] = makers[need.service.name](need.options)
        self.at(0)  # raises if a service is missing

    def at(self, step: int) -> Plan:
        """The plan as it is at a step."""
        seed = self.session.config.seed
        limits = self.session.config.rollout
        moment = Moment(seed, step, self.services, max_turns=limits.max_turns)
        return at_moment(self.plan, moment)

    def _experiences(self, options: Mapping[str, Any]) -> ExperienceFile:
        path = self.folder / "experiences.jsonl"
        return ExperienceFile(path, most=options["most"], write=cluster.is_first())

    def _swarm(self, options: Mapping[str, Any]) -> SharedGroups:
        address = options["address"]
        if not address:
            raise ValueError(
                "sapo_swarm needs a place that the runs have in common: address=FOLDER, or"
                " address=http://HOST:PORT of `python -m launch.swarm`"
            )
        if jax.process_count() > 1:
            raise ValueError(
                "a run of several processes cannot take part in a swarm: they could read different"
                " groups; let each process be a run of its own"
            )
        web = address.startswith(("http://", "https://"))
        return SharedGroups(
            HttpStore(address) if web else FolderStore(pathlib.Path(address)),
            run=self.session.run_dir.resolve().name,
            record=self.folder / "swarm.jsonl",
            text=lambda turn: turn_text(self.session.dialogue, turn.tokens),
            accept=self._accept,
            tell=functools.partial(display.CONSOLE.print, highlight=False, soft_wrap=True),
        )

    def _accept(self, shared: Shared) -> None:
        """Raises `ValueError` for a group that this run cannot play or judge."""
        session = self.session
        try:
            session.verifier.check(shared.problem)
        except ImportError as error:
            raise ValueError(f"its verifier is not installed here: {error}") from None
        rollout.render_prompt(session.dialogue, shared.problem, session.config.rollout)
        for turns in (played.turns for played in shared.rollouts):
            for turn in turns:
                session.dialogue.turn(turn)
