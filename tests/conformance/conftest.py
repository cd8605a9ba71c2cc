"""The end point that the rows of DOMAIN 9 are tried on, under each signature form."""

import pytest
from end_point import FORMS, listening


def pytest_generate_tests(metafunc):
    """Under each form of JWS; and at length under the profile whose messages carry certificates, unless the test is about a JWS's own parts."""
    if "smp" in metafunc.fixturenames:
        forms = list(FORMS)
        if metafunc.definition.get_closest_marker("jws") is None:
            forms.append(pytest.param("dip-like", marks=pytest.mark.long))
        metafunc.parametrize("smp", forms, indirect=True)


@pytest.fixture
async def smp(request, tmp_path):
    """An end point under the default profile, the odd one, the default one with the third form of JWS, or `dip-like`."""
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
