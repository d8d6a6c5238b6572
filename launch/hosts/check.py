"""Checks a preset and options of `launch.train` without a device or a file of the run.

python -m launch.hosts.check tiny --train.steps 100

The launchers ask before they ask for machines. Exit status 2 and one line say what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from configs.methods import make_method
from launch import cli
from launch.train import TrainArguments


def check_options(words: Sequence[str]) -> None:
    """Raises ValueError when `launch.train` would refuse the words before it looks at devices.

    Files that they name are where the run will be, so they are not looked for.
    """
    try:
        arguments = cli.parse(TrainArguments, words, program="launch.train")
        make_method(arguments.config.train.method)
    except ValueError as error:
        raise ValueError(f"launch.train would refuse what follows --: {error}") from None
    except SystemExit:
        raise ValueError(
            "what follows -- asks for the help of launch.train: python -m launch.train --help"
        ) from None


def run(argv: Sequence[str]) -> None:
    check_options(argv)


if __name__ == "__main__":
    cli.main(run)
