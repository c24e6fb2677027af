# SPDX-License-Identifier: Apache-2.0
"""Which kernel a session boots: what was asked for now, what its puzzle names, or the default."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from session_world import MANIFEST, world

from bugbox.errors import HostError, NotFound
from bugbox.image import store
from bugbox.puzzle.definition import load
from bugbox.session import prepare


def test_a_puzzle_boots_the_kernel_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def named(home: object, word: str) -> SimpleNamespace:
        asked.append(word)
        if word == "9.9":
            raise NotFound("no kernel 9.9 in the store", hint="bugbox kernel build")
        return SimpleNamespace(release=word)

    with world(tmp_path) as made:
        plain = SimpleNamespace(release="plain")
        for name, value in (("find_kernel", plain), ("find_initrd", tmp_path)):
            monkeypatch.setattr(store, name, lambda *_, value=value: value)
        monkeypatch.setattr(store, "find_base", lambda *_: made.parts.image)
        monkeypatch.setattr(store, "kernel_named", named)
        monkeypatch.setattr(prepare, "find_layer", lambda *_: SimpleNamespace(key="k"))

        def booted(more: str, now: str = "") -> str:
            made.write("puzzle.yaml", MANIFEST + more)
            found = prepare.find(made.home, made.settings, load(made.puzzle), now)
            assert found is not None
            return found.kernel.release

        assert booted("") == "plain" and asked == []
        assert booted('kernel: "6.1"\n') == "6.1"
        assert booted('kernel: "6.1"\n', "fast") == "fast"
        with pytest.raises(HostError, match=r"tiny wants kernel 9\.9: no kernel 9\.9") as caught:
            booted('kernel: "9.9"\n')
        assert caught.value.hint == "bugbox kernel build"
        with pytest.raises(NotFound):
            booted("", "9.9")
