# SPDX-License-Identifier: Apache-2.0
"""Completion scripts, written from the command line as it is."""

from __future__ import annotations

from collections.abc import Mapping

from bugbox.cli.app import app, commands

__all__ = ["options", "script"]

#: What a command's own words are: puzzles, sessions, or files.
_PUZZLES = frozenset({"show", "play", "start", "build", "lint"})
_SESSIONS = frozenset(
    {
        "check",
        "hint",
        "solution",
        "reset",
        "shell",
        "console",
        "logs",
        "pause",
        "resume",
        "stop",
        "debug",
    }
)

_BASH = """\
# bugbox: completion for bash
_bugbox() {
    local cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} words
    if [ "$COMP_CWORD" -eq 1 ]; then
        words='@COMMANDS@'
    else
        case "$verb $cur" in
@CASES@
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
_bugbox_puzzles() { bugbox list --json 2>/dev/null | sed -n 's/^    "name": "\\(.*\\)",$/\\1/p'; }
_bugbox_sessions() { bugbox ps --json 2>/dev/null | sed -n 's/^    "id": "\\(.*\\)",$/\\1/p'; }
complete -o default -F _bugbox bugbox
"""

_ZSH = """\
#compdef bugbox
# bugbox: completion for zsh
autoload -U +X bashcompinit && bashcompinit
@BASH@"""

_FISH = """\
# bugbox: completion for fish
function __bugbox_puzzles
    bugbox list --json 2>/dev/null | string match -gr '^    "name": "(.*)",$'
end
function __bugbox_sessions
    bugbox ps --json 2>/dev/null | string match -gr '^    "id": "(.*)",$'
end
complete -c bugbox -f
@LINES@
"""


def options() -> dict[str, list[str]]:
    """Return each command's long options; for a family, its children's names."""
    found: dict[str, list[str]] = {}
    for name, path in commands().items():
        if len(path) > 1:
            found[path[0]].append(path[1])
            continue
        own = app[name]
        if own.default_command is None:  # a family: its children come
            found[name] = []
            continue
        arguments = own.assemble_argument_collection(default_parameter=app.default_parameter)
        names = {n for a in arguments if a.parse for n in a.names if n.startswith("--")}
        found[name] = sorted(names)
    return found


def script(shell: str, words: Mapping[str, list[str]]) -> str:
    """Return the script for bash, zsh or fish."""
    if shell == "fish":
        return _FISH.replace("@LINES@", "\n".join(_fish_lines(words)))
    text = _BASH.replace("@COMMANDS@", " ".join(sorted(words)))
    text = text.replace("@CASES@", "\n".join(_bash_cases(words)))
    return _ZSH.replace("@BASH@", text) if shell == "zsh" else text


def _bash_cases(words: Mapping[str, list[str]]) -> list[str]:
    lines = []
    for verb, own in sorted(words.items()):
        plain = [word for word in own if not word.startswith("-")]
        if plain:
            lines.append(f"        {verb}' '*) words='{' '.join(plain)}' ;;")
            continue
        lines.append(f"        {verb}' '-*) words='{' '.join([*own, '--help'])}' ;;")
        source = _source(verb)
        if source:
            lines.append(f"        {verb}' '*) words=$(_bugbox_{source}) ;;")
    return lines


def _fish_lines(words: Mapping[str, list[str]]) -> list[str]:
    lines = [f"complete -c bugbox -n __fish_use_subcommand -a '{' '.join(sorted(words))}'"]
    for verb, own in sorted(words.items()):
        when = f"-n '__fish_seen_subcommand_from {verb}'"
        for word in own:
            flag = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
            lines.append(f"complete -c bugbox {when} {flag}")
        source = _source(verb)
        if source:
            lines.append(f"complete -c bugbox {when} -a '(__bugbox_{source})'")
    return lines


def _source(verb: str) -> str:
    return "puzzles" if verb in _PUZZLES else "sessions" if verb in _SESSIONS else ""
