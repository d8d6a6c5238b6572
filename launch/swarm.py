"""Serves the groups that runs share, for runs that have no folder in common.

python -m launch.swarm --folder runs/swarm --port 8700
"""

from __future__ import annotations

import dataclasses
import http.server
import json
import pathlib
from collections.abc import Sequence

from gtpo_jax.rollout.services import stores
from launch import cli, panels
from launch.run import display


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwarmArguments:
    """A hub of groups. Runs take part with `+ sapo_swarm address=http://HOST:PORT`."""

    folder: pathlib.Path
    """Folder that keeps the groups."""
    host: str = "127.0.0.1"
    """Address to listen on. Whoever reaches it can read and add groups."""
    port: int = 8700
    """Port to listen on; 0 takes a free one."""


class Hub(http.server.ThreadingHTTPServer):
    """Answers `put` and `others`. A group that is there is not replaced by another content."""

    daemon_threads = True

    def __init__(self, arguments: SwarmArguments):
        self.store = stores.FolderStore(arguments.folder, replace=False)
        super().__init__((arguments.host, arguments.port), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection to a hub."""

    server: Hub
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > 2 * stores.LARGEST:
            self.close_connection = True
            self._reply(413, {"error": f"a body must have at most {2 * stores.LARGEST:,} bytes"})
            return
        body = self.rfile.read(int(length))
        try:
            if self.path == "/put":
                self._put(json.loads(body))
            elif self.path == "/others":
                self._others(json.loads(body))
            else:
                self._reply(404, {"error": "there are /put and /others"})
        except (ValueError, RecursionError, OSError) as error:
            self._reply(400, {"error": str(error)[:200]})

    def _put(self, value: object) -> None:
        self.server.store.put(stores.decode(value))
        self._reply(200, {})

    def _others(self, value: object) -> None:
        fields = value if isinstance(value, dict) else {}
        run, newest = fields.get("run"), fields.get("newest")
        if not isinstance(run, str) or type(newest) is not int or not 1 <= newest <= 1000:
            raise ValueError("expected the name of a run, and newest from 1 to 1000")
        found = [stores.encode(stored) for stored in self.server.store.others(run, newest)]
        self._reply(200, {"groups": found})

    def _reply(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args  # a line for each request would be noise


def run(argv: Sequence[str]) -> None:
    arguments: SwarmArguments = panels.parse(
        SwarmArguments, argv, prog="python -m launch.swarm", description=SwarmArguments.__doc__
    )
    with Hub(arguments) as hub:
        host, port = hub.server_address[:2]
        display.CONSOLE.print(f"groups in {arguments.folder}, at http://{host}:{port}; Ctrl-C ends")
        hub.serve_forever()


if __name__ == "__main__":
    cli.main(run)
