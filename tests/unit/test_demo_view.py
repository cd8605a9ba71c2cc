"""What the demo's live view shows."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bridge.demo.play import Picture
from bridge.demo.view import draw

PAGES = "http://127.0.0.1:4711/"


def shown(pages, width, height):
    console = Console(file=StringIO(), width=width, height=height)
    console.print(draw(Picture(), Path("/run"), pages=pages, width=width, height=height))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(160, 60), (100, 30), (60, 12)])
def test_where_the_pages_are(width, height):
    """On a line of its own in a terminal of any size, as soon as it is known."""
    assert f"pages: {PAGES}" in [line.strip() for line in shown(PAGES, width, height)]
    assert not [line for line in shown("", width, height) if "pages" in line]
