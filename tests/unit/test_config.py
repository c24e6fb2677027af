# SPDX-License-Identifier: Apache-2.0
"""Settings: file, environment, and what is said when one is wrong."""

from pathlib import Path

import pytest

from bugbox.config import Settings, load
from bugbox.errors import UserError
from bugbox.paths import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_nothing_said_means_the_defaults(home: Home) -> None:
    assert load(home, {}) == Settings()


def test_the_environment_overrules_the_file(home: Home) -> None:
    home.settings.write_text('accel = "kvm"\ntimeout_factor = 2\n')
    settings = load(home, {"BUGBOX_ACCEL": "tcg"})
    assert (settings.accel, settings.timeout_factor) == ("tcg", 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accell = 1", "accell: unknown setting"),
        ('accel = "hvf"', "accel: expected one of auto, kvm, tcg, got 'hvf'"),
        ('timeout_factor = "fast"', "timeout_factor: expected a number, got 'fast'"),
        ("timeout_factor = 0", "timeout_factor: expected a number above 0"),
        ('escape = "zzz"', "escape: expected a caret name such as ^], or none; got 'zzz'"),
        ("= 3", "not valid TOML"),
    ],
)
def test_a_wrong_setting_says_where_and_what(home: Home, text: str, message: str) -> None:
    home.settings.write_text(text)
    with pytest.raises(UserError, match=r"config\.toml") as caught:
        load(home, {})
    assert message in str(caught.value)


def test_an_unknown_setting_names_the_nearest(home: Home) -> None:
    home.settings.write_text("accell = 1")
    with pytest.raises(UserError) as caught:
        load(home, {})
    assert caught.value.hint == "did you mean accel?"
