# SPDX-License-Identifier: Apache-2.0
"""What a guest may reach: one table for every kind of network, measured and held to the docs."""

from __future__ import annotations

import http.server
import re
import socketserver
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/explanation/network.md"

#: In the order of the table: a word for it, and what the page calls it.
ROWS = {
    "loopback": "the host's 127.0.0.1, by the gateway's address",
    "host": "the host's own address",
    "link": "the host's end of the link",
    "guest": "another machine",
    "metadata": "cloud metadata, 169.254.169.254",
    "private10": "a private network, 10.0.0.0/8",
    "private172": "a private network, 172.16.0.0/12",
    "private192": "a private network, 192.168.0.0/16",
    "private100": "a carrier's network, 100.64.0.0/10",
    "neighbour": "a public address on the host's own network",
    "internet": "the internet",
    "names": "names, asked of 10.0.2.3",
}

WORDS = {True: "yes", False: "no", None: "-"}


def documented(column: str) -> dict[str, bool | None]:
    """The page's column of that heading, by row."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head = next(row for row in cells if column in row)
    place = head.index(column)
    values = {word: value for value, word in WORDS.items()}
    labels = {label: row for row, label in ROWS.items()}
    return {
        labels[row[0]]: values[re.sub(r"[*]", "", row[place])] for row in cells if row[0] in labels
    }


def rows(found: Mapping[str, bool | None]) -> str:
    return "\n".join(f"{ROWS[row]}: {WORDS[found.get(row)]}" for row in ROWS)


@dataclass
class Server:
    """A real HTTP server and who has asked it."""

    address: str
    port: int
    asked: list[str]
    _server: http.server.ThreadingHTTPServer

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Quick(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without asking anybody for the address's name."""
        socketserver.TCPServer.server_bind(self)


def serve(address: str, port: int = 0) -> Server:
    """Serve on `address`, in the calling thread's network namespace."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.client_address[0]} {self.path}")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"stand-in")

        def log_message(self, *args: object) -> None:
            pass

    server = _Quick((address, port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return Server(address, int(server.server_address[1]), asked, server)
