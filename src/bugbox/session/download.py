# SPDX-License-Identifier: Apache-2.0
"""Fetch a file somebody named by its address."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from bugbox.errors import UserError
from bugbox.events import progress

__all__ = ["download", "is_address"]

_TIMEOUT = 60.0
_PIECE = 1 << 20


def is_address(word: str) -> bool:
    """Whether a word is an address rather than a file's name."""
    return word.startswith(("http://", "https://"))


def download(address: str, to: Path, *, limit: int) -> None:
    """Write what is at an http or https address to a new file of at most `limit` bytes."""
    if not is_address(address):
        raise UserError(f"{address}: expected an address that begins with http:// or https://")
    request = urllib.request.Request(address, headers={"User-Agent": "bugbox"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, to.open("xb") as out:
            total, done = int(answer.headers.get("Content-Length") or 0), 0
            while data := answer.read(_PIECE):
                done += len(data)
                if done > limit:
                    raise UserError(f"{address}: larger than {limit >> 20} MiB")
                out.write(data)
                progress("Download", done, total, "bytes")
            if done < total:
                raise UserError(f"{address}: the download was cut short")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{address}: cannot be fetched: {reason}") from error
