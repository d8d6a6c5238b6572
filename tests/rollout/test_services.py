"""Services of plans: texts of a dialogue, the file of experiences, and groups that runs share."""

import json
import threading

import numpy as np
import pytest

from gtpo_jax.parts.plans.experienced import Edit
from gtpo_jax.parts.plans.swarm import Rollout
from gtpo_jax.rollout import services
from gtpo_jax.rollout.services import shared_groups, stores
from gtpo_jax.rollout.services.stores import Stored
from gtpo_jax.types import Problem, StopReason, Trajectory, Turn, UnitTests, Verdict
from launch.swarm import Hub, SwarmArguments
from tests.tiny import DIALOGUE


def of_text(text):
    tokens = DIALOGUE.turn(text)
    return Turn(tokens=tokens, logprobs=np.zeros(len(tokens), np.float32), text=text)


def member(*texts, success=True, problem=None, verdict=None):
    return Trajectory(
        problem=problem or Problem(id="p", question="2+2", answer="4"),
        group=0,
        sample=0,
        prompt=np.zeros(1, np.int32),
        turns=tuple(map(of_text, texts)),
        stop_reason=StopReason.ANSWERED,
        verdict=verdict or (Verdict.RIGHT if success else Verdict.WRONG),
    )


def text(turn):
    return services.turn_text(DIALOGUE, turn.tokens)


GROUP = [
    member("<code>2+2</code>", "<answer>4</answer>"),
    member("<answer>5</answer>", success=False),
    member("<answer>?</answer>", verdict=Verdict.UNVERIFIABLE),
]
CONTENT = shared_groups.encode_group(GROUP, text)


class Swarm:
    """Runs that share a store."""

    def __init__(self, store, folder, accept=lambda shared: None):
        self.store, self.folder, self.accept, self.told = store, folder, accept, []

    def run(self, name, **options):
        return services.SharedGroups(
            self.store,
            run=name,
            record=self.folder / name / "swarm.jsonl",
            text=text,
            accept=self.accept,
            tell=self.told.append,
            **options,
        )


@pytest.fixture
def folder(tmp_path):
    return services.FolderStore(tmp_path / "common")


@pytest.fixture
def swarm(folder, tmp_path):
    return Swarm(folder, tmp_path)


def test_answers_and_turns_are_read_again_as_the_same_tokens():
    made = services.of_dialogue(DIALOGUE, observation_tokens=16)
    written = made["write_answer"]("so ", "4")
    expected = DIALOGUE.answer("so ", "4")
    assert DIALOGUE.turn(written).tolist() == expected.tolist()
    assert DIALOGUE.turn(text(GROUP[0].turns[0])).tolist() == GROUP[0].turns[0].tokens.tolist()
    turn = made["observe"](GROUP[0].turns[0], "4")
    assert turn.observation.tolist() == DIALOGUE.observation("4", budget=16)[0].tolist()


def test_a_shared_group_is_what_was_sampled(swarm):
    swarm.run("one").share(3, 1, GROUP)
    [found] = swarm.run("two").groups(0)
    assert found.id == "swarm/one/3/1"
    assert (found.problem.question, found.problem.answer) == ("2+2", "4")
    assert found.rollouts == (
        Rollout(("<code>2+2</code>", "<answer>4</answer>"), True),
        Rollout(("<answer>5</answer>",), False),
    )
    assert not swarm.run("one").groups(0)


def test_problems_with_unit_tests_are_not_shared(swarm, folder):
    problem = Problem(id="p", question="q", answer="a", unit_tests=UnitTests(tests=("x",)))
    swarm.run("one").share(0, 0, [member("a", problem=problem)])
    swarm.run("one").share(0, 1, [])
    assert not folder.folder.exists()


def test_only_the_newest_groups_of_each_run_are_read(swarm):
    one = swarm.run("one")
    for step in range(3):
        for group in range(2):
            one.share(step, group, GROUP)
    found = swarm.run("two", newest=3).groups(9)
    assert [shared.id for shared in found] == [f"swarm/one/{at}" for at in ("1/1", "2/0", "2/1")]


def test_a_resumed_run_draws_from_what_it_read_before(swarm, tmp_path):
    one, two = swarm.run("one"), swarm.run("two")
    one.share(0, 0, GROUP)
    first = two.groups(0)
    one.share(1, 0, GROUP)
    second = two.groups(1)
    assert [len(first), len(second)] == [1, 2]
    one.share(2, 0, GROUP)
    # Other content in the place of the first group, which the run has read already.
    one.share(0, 0, [member("<answer>6</answer>"), GROUP[1]])
    again = swarm.run("two")
    assert (again.groups(0), again.groups(1)) == (first, second)
    assert len(again.groups(2)) == 3 and again.groups(2)[0] == first[0]
    # Killed in the middle of a line.
    path = tmp_path / "two" / "swarm.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 3, "ids": ["swa')
    again = swarm.run("two")
    assert len(again.groups(3)) == 3
    assert swarm.run("two").groups(3) == again.groups(3)


def changed(**fields):
    return json.dumps({**json.loads(CONTENT), **fields}).encode()


def problem_with(**fields):
    return changed(problem={**json.loads(CONTENT)["problem"], **fields})


HOSTILE = {
    "empty": (b"", "Expecting value"),
    "no JSON": (b"\x00\xff", "can't decode"),
    "other encoding": ('{"version": 1}'.encode("utf-16"), "can't decode"),
    "nested": (b"[" * 100_000, "JSON nested too deeply"),
    "digits": (b'{"version": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
    "list": (b"[]", "the file must be an object, got"),
    "version": (changed(version=2), "version must be 1, got 2"),
    "no problem": (changed(problem=None), "problem must be an object, got None"),
    "number": (problem_with(question=4), "question must be a text .* got 4"),
    "blank": (problem_with(answer=" "), "must have a question and an answer"),
    "long": (problem_with(question="x" * 200_001), "at most 200,000 characters"),
    "large": (problem_with(id="x" * (1 << 20)), "more than 1,048,576 bytes"),
    "choices": (problem_with(choices=["a"] * 65), "choices must be a list of at most 64"),
    "rollouts": (changed(rollouts={"turns": []}), "rollouts must be a list of at most 256"),
    "no turns": (changed(rollouts=[{"turns": [], "success": True}]), "must have turns"),
    "claim": (changed(rollouts=[{"turns": ["a"], "success": "yes"}]), "success true or false"),
    "turn": (changed(rollouts=[{"turns": [[]], "success": True}]), r"a turn must be a text"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_told_and_skipped(name, swarm, folder):
    content, words = HOSTILE[name]
    folder.put(Stored("bad", 0, 0, content))
    swarm.run("one").share(0, 0, GROUP)
    two = swarm.run("two")
    assert [shared.id for shared in two.groups(0)] == ["swarm/one/0/0"]
    two.groups(1)
    assert len(swarm.told) == 1 and "\n" not in swarm.told[0]
    with pytest.raises(ValueError, match=f"swarm/bad/0/0: .*{words}"):
        shared_groups.decode_group(Stored("bad", 0, 0, content[: stores.LARGEST + 1]))


def test_links_other_names_and_groups_that_cannot_be_played_are_skipped(tmp_path, folder):
    def accept(shared):
        raise ValueError("its prompt is too long")

    swarm = Swarm(folder, tmp_path, accept)
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    (folder.folder / "bad").mkdir(parents=True)
    (folder.folder / "bad" / "step-000000-group-0000.json").symlink_to(secret)
    (folder.folder / "bad" / "notes.txt").write_text("x")
    (folder.folder / ".hidden").mkdir()
    assert not swarm.run("two").groups(0) and not swarm.told
    folder.put(Stored("one", 0, 0, CONTENT))
    assert not swarm.run("two").groups(1)
    assert swarm.told == ["a group of another run was refused: its prompt is too long"]
    with pytest.raises(ValueError, match=r"letters, digits, .* got '\.\./x'"):
        folder.put(Stored("../x", 0, 0, CONTENT))


def test_a_hub_does_what_a_folder_does(tmp_path):
    with Hub(SwarmArguments(folder=tmp_path / "hub", port=0)) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        store = services.HttpStore(f"http://127.0.0.1:{hub.server_address[1]}")
        swarm = Swarm(store, tmp_path)
        swarm.run("one").share(0, 0, GROUP)
        swarm.run("one").share(0, 0, GROUP[::-1])  # what is there stays
        found = swarm.run("two").groups(0)
        with pytest.raises(OSError, match="the hub answered 400"):
            list(store.others("two", -1))
        with pytest.raises(OSError, match="the hub answered 400"):
            store._post(store.putting, {"run": "../x", "step": 0, "group": 0, "content": ""})
        store.close()
        hub.shutdown()
        thread.join()
    assert found == [shared_groups.decode_group(Stored("one", 0, 0, CONTENT))]


def test_an_unreachable_hub_is_told_and_the_run_goes_on(tmp_path):
    swarm = Swarm(services.HttpStore("http://127.0.0.1:9", seconds=1.0), tmp_path)
    one = swarm.run("one")
    one.share(0, 0, GROUP)
    assert not one.groups(0)
    assert [line.split(":")[0] for line in swarm.told] == [
        "a group could not be shared",
        "groups of other runs could not be read",
    ]


def add(text):
    return [Edit("add", text)]


def test_experiences_take_effect_in_the_next_step_in_the_order_of_groups(tmp_path):
    kept = services.ExperienceFile(tmp_path / "e.jsonl", most=3)
    assert kept.texts(0) == []
    kept.edit(0, 1, add("b"))
    kept.edit(0, 0, add("a"))
    assert kept.texts(0) == []
    assert kept.texts(1) == ["a", "b"]
    kept.edit(1, 0, [Edit("modify", "A", 0), Edit("keep", index=1), *add("c")])
    assert kept.texts(2) == ["A", "b", "c"]
    kept.edit(2, 0, [Edit("delete", index=1), Edit("delete", index=9), *add("c"), *add("d")])
    assert kept.texts(3) == ["A", "c", "d"]
    kept.edit(3, 0, add("e"))
    assert kept.texts(4) == ["c", "d", "e"]


def test_experiences_of_repeated_steps_are_those_of_the_repetition(tmp_path):
    path = tmp_path / "e.jsonl"
    kept = services.ExperienceFile(path, most=9)
    for step in range(3):
        kept.texts(step)
        kept.edit(step, 0, add(f"at {step}"))
    with path.open("ab") as file:
        file.write(b'{"step": 3, "gr')  # killed in the middle of a line
    resumed = services.ExperienceFile(path, most=9)
    assert resumed.texts(1) == ["at 0"]
    resumed.edit(1, 0, add("again"))
    assert resumed.texts(2) == ["at 0", "again"]
    assert services.ExperienceFile(path, most=9).texts(2) == ["at 0", "again"]
    other = services.ExperienceFile(path, most=9, write=False)
    other.texts(2)
    other.edit(2, 0, add("in memory"))
    assert other.texts(3)[-1] == "in memory"
    assert len(services.ExperienceFile(path, most=9).texts(3)) == 2


def test_a_damaged_record_is_told(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text("{\n")
    with pytest.raises(ValueError, match=r"is damaged: .*; restore it, or remove it"):
        services.ExperienceFile(path, most=9)
