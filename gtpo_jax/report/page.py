"""Builds one HTML page with the trajectories and curves of a run. The page needs no network."""

from __future__ import annotations

import base64
import hashlib
import html
import pathlib
from collections.abc import Mapping, Sequence

from gtpo_jax.report import evaluations as held_out
from gtpo_jax.report import panels
from gtpo_jax.report.bundle import bundle, pack

ASSETS = pathlib.Path(__file__).parent / "assets"
SCRIPTS = ("data", "state", "curves", "evaluations", "highlight", "turns", "view", "list", "main")
"""Scripts in the order in which they are joined: each uses those before it while it loads."""


def build_page(
    sources: Mapping[str, Sequence[dict]],
    *,
    title: str,
    subtitle: str = "",
    note: str = "",
    runs: Mapping[str, Mapping[str, panels.Metrics]] | None = None,
    evaluations: Mapping[str, Sequence[held_out.HeldOut]] | None = None,
) -> str:
    """Builds the page of the records of named sources (`records.trajectory_record`).

    `subtitle`, `note` and warnings about the only run are shown below the title.
    `runs[run][phase]` are metrics to draw, `evaluations[run]` evaluations on held-out problems,
    earliest policy first. Equal arguments give equal pages. Raises `ValueError` if there is no
    record.

    No text of a policy, a tool or a problem becomes markup: it is compressed, base64-encoded data
    that the page's script inserts as text. The content security policy allows only that script.
    """
    if not any(sources.values()):
        raise ValueError(f"no trajectory to show in {', '.join(sources) or 'no source'}")
    runs = runs or {}
    made = bundle(sources)
    warnings = panels.warnings(_only_training(runs))
    index = made.index | {
        "title": title,
        "subtitle": subtitle,
        "note": " ".join(filter(None, [note, *warnings])),
        "figures": panels.figures(_only_training(runs)),
        "panels": panels.panels(runs),
        "evaluations": held_out.section(evaluations or {}),
    }
    style = _asset("page.css")
    script = _script()
    data = [f'<script type="application/octet-stream" id="index">{pack(index)}</script>']
    data += [
        f'<script type="application/octet-stream" class="chunk">{pack(chunk)}</script>'
        for chunk in made.chunks
    ]
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)};"
        " img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = _asset("page.html")
    for name, value in {
        "POLICY": policy,
        "STYLE": style,
        "DATA": "\n".join(data),
        "SCRIPT": script,
        "TITLE": html.escape(title),  # last, since it may contain any text
    }.items():
        before, after = page.split("{{" + name + "}}")
        page = before + value + after
    return page


def _only_training(runs: Mapping[str, Mapping[str, panels.Metrics]]) -> panels.Metrics:
    """The metrics for key figures: those of the only run; none if there are several runs."""
    [*phases] = runs.values()
    return phases[0].get("train", ()) if len(phases) == 1 else ()


def _script() -> str:
    parts = [_asset(f"{name}.js") for name in SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The hash of inline text as a source of a content security policy."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
