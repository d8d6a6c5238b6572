"""Lists the commands of this package, in the order in which a run uses them.

python -m launch
"""

from __future__ import annotations

import ast
import pathlib

from launch.run.display import CONSOLE, PLAIN

COMMANDS = (
    *("demo", "sft", "train", "evaluate", "report", "compare", "rollout"),
    *("convert", "train_tokenizer", "methods", "lab", "plan", "rounds", "swarm", "local_cluster"),
)
HOSTS = ("hosts.jobset",)


def summary(command: str) -> str:
    """The first line of a command's docstring; the module is read, not imported."""
    path = pathlib.Path(__file__).parent.joinpath(*command.split(".")).with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0]


def main() -> None:
    width = max(map(len, (*COMMANDS, *HOSTS)))
    CONSOLE.print("python -m launch.COMMAND --help, where COMMAND is", **PLAIN)
    for command in (*COMMANDS, *HOSTS):
        CONSOLE.print(f"{command:<{width}}  {summary(command)}", **PLAIN)


if __name__ == "__main__":
    main()
