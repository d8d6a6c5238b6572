"""Checks a preset and options of `launch.train` without a device or a file of the run.

python -m launch.hosts.check tiny --train.steps 100

The launchers call it before they request machines. An error is one line and exit status 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from configs.methods import make_method
from launch import cli
from launch.train import TrainArguments


def check_options(words: Sequence[str]) -> None:
    """Raises ValueError if `launch.train` would refuse the options before it looks at devices.

    Files that the options name are not checked, because they are on the machines of the run.
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
