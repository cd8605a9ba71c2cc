"""The end point that the rows of DOMAIN 9 are tried on, under each signature form."""

import pytest
from end_point import FORMS, listening


@pytest.fixture(params=FORMS)
async def smp(request, tmp_path):
    """An end point under the default profile, the odd one, and the default one with the third signature form."""
    async with listening(tmp_path, profile=request.param) as made:
        yield made


@pytest.fixture
async def detached(tmp_path):
    """An end point under the default profile alone, for what has only to do with its form."""
    async with listening(tmp_path) as made:
        yield made


@pytest.fixture
async def flattened(tmp_path):
    """An end point under the odd profile alone, for what has only to do with its form."""
    async with listening(tmp_path, profile="odd") as made:
        yield made
