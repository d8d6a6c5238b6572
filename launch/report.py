"""Shows what the policy did: one page of a run's trajectories, or learning curves of several runs.

    python -m launch.report runs/mine
    python -m launch.report --compare runs/mine runs/other

The page needs no network and no server: open the file in a browser, or send it to somebody.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

import tyro
from PIL import Image

from gtpo_jax.report import bands
from gtpo_jax.report.page import build_page
from launch import cli, panels
from launch.run import run_folder
from launch.run.display import CONSOLE

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PICTURE = (1280, 960)
"""Width and height of a picture of the page, in pixels."""
PICTURE_SECONDS = 60
PAGES = (".html", ".htm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """One HTML page of trajectories and curves; with --compare, learning curves over seeds."""

    runs: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Folders of runs, or a folder of `launch.compare` that contains runs."""
    compare: bool = False
    """Draw learning curves as a PNG: runs that differ only in the seed form one band."""
    out: pathlib.Path | None = None
    """File to write. None: report.html, or compare.png, in the first folder."""
    steps: tuple[int, ...] = ()
    """Steps whose trajectories are shown. Empty: all."""
    most: int = 5_000
    """Largest number of trajectories on the page. If there are more, groups are chosen evenly, and
    the page says so."""
    screenshot: pathlib.Path | None = None
    """Also write a PNG of the page, made with Chromium."""

    def __post_init__(self):
        if not self.runs:
            raise ValueError("no run is named; give its folder, such as runs/mine")
        if self.most < 1:
            raise ValueError(f"most must be at least 1, got {self.most}")
        endings = bands.endings() if self.compare else PAGES
        if self.out is not None and self.out.suffix not in endings:
            what = "curves are a picture" if self.compare else "a page is HTML"
            raise ValueError(
                f"--out {self.out}: {what}; its name must end in {' or '.join(endings)}"
            )
        if self.compare and (self.steps or self.screenshot):
            raise ValueError("--steps and --screenshot are for the page; leave out --compare")


def parse(argv: Sequence[str]) -> ReportArguments:
    """Arguments of the command line. Raises `ValueError` for an error in them."""
    return panels.parse(
        ReportArguments, argv, prog="python -m launch.report", description=ReportArguments.__doc__
    )


def write_page(arguments: ReportArguments, runs: Sequence[pathlib.Path]) -> pathlib.Path:
    """Writes the page of the runs and returns its path."""
    names = run_folder.names_of(runs)
    files: run_folder.Files = {}
    for name, run in zip(names, runs, strict=True):
        for source, paths in run_folder.record_files(run).items():
            files[source if len(runs) == 1 else f"{name}: {source}"] = paths
    gathered = run_folder.gather(files, most=arguments.most, steps=arguments.steps)
    note = ""
    if gathered.taken < gathered.all:
        note = (
            f"{gathered.taken:,} of {gathered.all:,} trajectories: whole groups, evenly chosen."
            " --most takes more, --steps other ones."
        )
    page = build_page(
        gathered.sources,
        title=" · ".join(names),
        subtitle=_subtitle(runs),
        note=note,
        runs=dict(zip(names, map(run_folder.metrics_of, runs), strict=True)),
        evaluations=dict(zip(names, map(run_folder.evaluations_of, runs), strict=True)),
    )
    path = arguments.out or arguments.runs[0] / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    CONSOLE.print(
        f"{path}: {gathered.taken:,} of {gathered.all:,} trajectories,"
        f" {path.stat().st_size / 2**20:.1f} MiB",
        highlight=False,
        soft_wrap=True,
    )
    return path


def _subtitle(runs: Sequence[pathlib.Path]) -> str:
    """Method, seed and size of the training, if there is a single run and it was trained."""
    if len(runs) > 1 or not (runs[0] / "train" / "config.json").exists():
        return ""
    settings = run_folder.settings_of(runs[0])
    train = settings["train"]
    return (
        f"{' '.join(train['method'])} · seed {settings['seed']} · {train['steps']} steps"
        f" of {train['prompts']} groups with {train['prompts'] * train['group_size']} trajectories"
    )


def take_picture(page: pathlib.Path, out: pathlib.Path) -> None:
    """Writes a PNG of the top of a page, with few colors to keep it small.

    Raises `ValueError` where no browser is found or the browser fails.
    """
    browsers = [path for name in BROWSERS if (path := shutil.which(name))]
    if not browsers:
        raise ValueError(f"--screenshot needs a browser on PATH, one of {', '.join(BROWSERS)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        raw = pathlib.Path(folder) / "raw.png"
        command = [
            *(browsers[0], "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--no-first-run", "--disable-quic", "--disable-background-networking"),
            *("--disable-component-update", "--disable-sync", f"--user-data-dir={folder}/profile"),
            *(f"--window-size={PICTURE[0]},{PICTURE[1]}", "--virtual-time-budget=5000"),
            *(f"--screenshot={raw}", page.resolve().as_uri()),
        ]
        try:
            ended = subprocess.run(
                command,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=PICTURE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(
                f"{browsers[0]} made no picture in {PICTURE_SECONDS} seconds"
            ) from None
        if not raw.exists():
            last = ended.stderr.strip().split("\n")[-1]
            raise ValueError(f"{browsers[0]} made no picture (status {ended.returncode}): {last}")
        with Image.open(raw) as picture:
            picture.convert("RGB").quantize(256).save(out, optimize=True)
    CONSOLE.print(f"{out}: a picture of the page", highlight=False, soft_wrap=True)


def write_comparison(arguments: ReportArguments, runs: Sequence[pathlib.Path]) -> None:
    """Draws the curves of runs and prints their last values."""
    made = []
    for name, run in zip(run_folder.names_of(runs), runs, strict=True):
        metrics = run_folder.metrics_of(run)["train"]
        made.append(bands.Run(name=name, settings=run_folder.settings_of(run), metrics=metrics))
    groups = bands.group_runs(made)
    path = arguments.out or arguments.runs[0] / "compare.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    bands.plot_comparison(groups, path)
    CONSOLE.print(bands.comparison_table(groups))
    CONSOLE.print(f"curves in {path}", highlight=False, soft_wrap=True)


def run(argv: Sequence[str]) -> None:
    arguments = parse(argv)
    if arguments.compare:
        write_comparison(
            arguments,
            run_folder.find_runs(arguments.runs, run_folder.trained, "metrics of training"),
        )
        return
    runs = run_folder.find_runs(arguments.runs, run_folder.record_files, "trajectories")
    page = write_page(arguments, runs)
    if arguments.screenshot is not None:
        take_picture(page, arguments.screenshot)


if __name__ == "__main__":
    cli.main(run)
