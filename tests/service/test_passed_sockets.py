"""A socket that was passed for the admin listener: what of this machine's network can reach it decides what it must have."""

import asyncio
import socket

import pytest
from service import CLOCK, prepared

from bridge.app import Host, Role, Running
from bridge.errors import ConfigError

TLS = {"certificate": "../keys/returns.crt.pem", "private_key": "../keys/returns.key.pem"}


def passed_to(made, passed):
    """A host whose admin listener is this socket; the field's part is the quickest to start."""
    return Host(made.config(), clock=CLOCK, role=Role.FIELD, sockets={"admin": passed})


@pytest.mark.parametrize(
    "admin", [{}, {**TLS, "without_token": "reading"}, {"without_token": "reading"}], ids=["no TLS", "no token", "neither"]
)  # fmt: skip
async def test_a_socket_that_others_reach_needs_tls_and_tokens(tmp_path, admin):
    """The configured address is a loopback one, the socket that comes is not: the host does not start, and says what would be right."""
    async with prepared(tmp_path, host={"listeners": {"returns": {**TLS, "port": 0}, "admin": admin}}) as made:
        with socket.create_server(("0.0.0.0", 0)) as passed, pytest.raises(ConfigError) as refused:  # noqa: S104 - that is the point
            async with asyncio.timeout(10):
                await passed_to(made, passed).run(Running())
    [problem] = refused.value.problems
    assert problem.path == "listeners.admin"
    assert "not of a loopback address: give it `certificate` and `private_key`, and no `without_token`" in problem.text


async def test_with_both_it_is_listened_on(tmp_path):
    """TLS, and nothing without a token: the same socket is served."""
    async with prepared(tmp_path, host={"listeners": {"returns": {**TLS, "port": 0}, "admin": TLS}}) as made:
        with socket.create_server(("0.0.0.0", 0)) as passed:  # noqa: S104 - that is the point
            running, port = Running(), passed.getsockname()[1]
            work = asyncio.create_task(passed_to(made, passed).run(running))
            async with asyncio.timeout(20):
                ready = asyncio.create_task(running.ready.wait())
                await asyncio.wait({work, ready}, return_when=asyncio.FIRST_COMPLETED)
                assert ready.done(), work.exception()
                assert running.admin_port == port
                running.stop.set()
                await work
