# SPDX-License-Identifier: Apache-2.0
"""Text that came from a guest or a puzzle, made safe for a terminal.

Whatever a machine or an author wrote is data: a control byte in it could move the cursor, change
the window's title or hide what was printed before. So it is shown, not sent.
Next to no imports: the thin clients use this.
"""

from __future__ import annotations

import unicodedata

__all__ = ["one_line", "printable"]

#: Cc control bytes, Cf format characters (they reorder text), Cs halves of a surrogate pair,
#: Co private use, Cn unassigned, Zl and Zp line breaks that not everybody sees as such.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Zero-width joiners are Cf and belong to scripts and pictures people do write.
_ALLOWED = frozenset("\u200c\u200d")


def printable(text: str | bytes, *, lines: bool = True) -> str:
    r"""Return `text` with every control character written out, as in `\x1b[2J`.

    With `lines`, line feeds and tabs stay; a CRLF becomes a line feed. Bytes that are not UTF-8
    are written out as well.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if lines:
        text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(char if char in kept else _shown(char) for char in text)


def _shown(char: str) -> str:
    if char in _ALLOWED or unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str | bytes, limit: int = 300) -> str:
    """Return `text` as one printable line of at most `limit` characters."""
    if isinstance(text, bytes):
        text = text[: 8 * limit].decode("utf-8", "surrogateescape")
    shown = printable(" ".join(text[: 8 * limit].split()), lines=False)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
