"""The README's example runs, and its map shows the tree as it is."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_example_gives_turn_advantages_for_gtpo_and_one_for_grpo():
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    gtpo, grpo = names["gtpo"], names["grpo"]
    assert gtpo.shape == grpo.shape == (4, 3)
    assert len(set(gtpo[0].tolist())) == 3
    assert len(set(grpo[0].tolist())) == 1
    assert gtpo[1, 2] > gtpo[2, 1], "the code that resembles the success earns more"


def test_readme_map_names_every_room():
    tree = re.search(r"## Where things are\n\n```\n(.*?)```", README, flags=re.S).group(1)
    rooms = {
        path.name + "/" * path.is_dir()
        for path in (ROOT / "gtpo_jax").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    missing = [room for room in rooms - {"__init__.py"} if f"  {room} " not in tree]
    assert not missing
