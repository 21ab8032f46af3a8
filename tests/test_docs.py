"""The documentation against what it speaks of."""

import re

import pytest
from front_door import ROOT

from mhcvse_jax import config as config_lib
from mhcvse_jax.__main__ import COMMANDS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_configurations_exist(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"^ *`?mhcvse ([a-z-]+)", text, re.MULTILINE)) <= set(COMMANDS)
    assert set(re.findall(r"--config ([a-z0-9_]+)\b(?!\.|/)", text)) <= set(config_lib.named())


def test_the_readme_is_short_and_lists_every_command():
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE) == [*COMMANDS]
