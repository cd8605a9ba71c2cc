"""`smp-bridge sandbox` as a tester meets it: a process, called by a client that shares no code with it."""

import asyncio
import json
import os
import re
import socket
import ssl
import sys
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from forked import forked
from jwt.algorithms import ECAlgorithm

from bridge.sandbox.options import jwks_of

ASSET = {
    "assetReference": "BESS001", "assetName": "North Yard Battery", "importMpan": "1012345678903", "postcode": "IP1 2AB", "gspGroup": "_A",
    "connectionType": "DISTRIBUTION", "connectionVoltageKv": 33, "technologyType": "SOLAR", "maxExportKw": 5, "maxImportKw": 1,
    "meteringType": "HH", "meteringIntervalMs": 1800000, "effectiveFrom": "2026-12-01T00:00:00.000Z",
}  # fmt: skip


class Client:
    """A participant's client, written against DOMAIN 4 with PyJWT and nothing of the bridge."""

    def __init__(self, directory, base, control, http):
        self.directory, self.base, self.control, self.http = directory, base, control, http
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.token = ""

    async def login(self, password="secret of acme"):
        async with self.http.post(
            f"{self.base}/api/v1/authenticate", json={"username": "acme", "password": password}
        ) as answer:
            if answer.status == 200:
                self.token = (await answer.json())["access_token"]
            return answer.status

    async def call(self, path, kind, data, *, key=None, **headers):
        body = json.dumps({
            "messageId": str(uuid.uuid4()), "messageType": kind, "schemaVersion": "1.0", "environment": "TEST", "sender": "ACME",
            "recipient": "SMP", "correlationId": "sub-1", "data": data,
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }).encode()  # fmt: skip
        signed = jwt.api_jws.encode(body, key or self.key, algorithm="ES256", headers={"kid": "acme-1", "typ": None})
        protected, _, signature = signed.split(".")
        headers = {"Authorization": f"Bearer {self.token}", "x-jws-signature": f"{protected}..{signature}", **headers}
        async with self.http.post(
            f"{self.base}{path}", data=body, headers={"Content-Type": "application/json", **headers}
        ) as answer:
            return answer.status, dict(answer.headers), await answer.read()

    async def create(self, *references, **more):
        assets = [{**ASSET, "assetReference": reference} for reference in references]
        return await self.call("/api/v1/assets", "asset.create", {"assets": assets}, **more)

    async def controls(self, method, path, content=None):
        async with self.http.request(method, f"{self.control}{path}", json=content) as answer:
            return answer.status, await answer.json()


async def executed(*arguments, environment):
    """As a tester starts it: an interpreter of its own."""
    command = [sys.executable, "-c", "from bridge.cli import main; main()", *map(str, arguments)]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)


@asynccontextmanager
async def running(directory, *arguments, start=forked):
    """A sandbox process with one account, and a client of it; `start` makes the process, see forked.py."""
    client = Client(directory, "", "", None)
    public = json.loads(ECAlgorithm.to_jwk(client.key.public_key()))
    (directory / "acme.jwks.json").write_text(json.dumps({"keys": [{**public, "kid": "acme-1", "alg": "ES256"}]}))
    (directory / "password").write_text("secret of acme\n")
    (directory / "accounts.yaml").write_text(
        "- {name: acme-test, user: acme, password_file: password, jwks: acme.jwks.json, sender: ACME}\n"
    )
    process = await start(
        "sandbox", "--accounts", directory / "accounts.yaml", "--dir", directory / "out", "--port", "0", "--control-port", "0",
        *arguments, environment=os.environ,
    )  # fmt: skip
    try:
        said = ""
        async with asyncio.timeout(30):
            while "Ctrl-C" not in said:
                line = await process.stdout.readline()
                assert line, (await process.stderr.read()).decode()
                said += line.decode()
        client.base = re.search(r"https://\S+", said)[0]
        client.control = re.search(r"http://127\.0\.0\.1:\d+", said)[0]
        trust = ssl.create_default_context(cafile=directory / "out/ca.pem")
        if "--mtls" in arguments:
            trust.load_cert_chain(directory / "out/client.crt.pem", directory / "out/client.key.pem")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as client.http:
            yield client
    finally:
        process.terminate()
        async with asyncio.timeout(20):
            await process.communicate()


async def test_a_profile_with_certificates(tmp_path):
    """Its certificate is written beside its authority's, for `smp_certificate`; no key set is named in env.sh."""
    async with running(tmp_path, "--profile", "dip-like"):
        out = tmp_path / "out"
        shown, pinned = (
            x509.load_pem_x509_certificate((out / name).read_bytes()) for name in ("smp.crt.pem", "ca.pem")
        )
        shown.verify_directly_issued_by(pinned)
        assert shown.subject.rfc4514_string() == "CN=SMP"
        assert "SMP_JWKS" not in (out / "env.sh").read_text()


async def test_the_four_calls(tmp_path):
    """Login, Create, status: the answer is signed with the key set that the command wrote, and the ledger tells the same."""
    async with running(tmp_path, start=executed) as client:
        assert await client.login("wrong") == 401
        assert await client.login() == 200
        status, headers, body = await client.create("BESS001", "BESS002")
        assert status == 202
        transaction = json.loads(body)["transactionId"]
        [jwk] = json.loads((tmp_path / "out/smp.jwks.json").read_text())["keys"]
        protected, _, signature = headers["x-jws-signature"].split(".")
        payload = jwt.utils.base64url_encode(body).decode()
        public = jwt.PyJWK(jwk).key
        assert ECAlgorithm(ECAlgorithm.SHA256).verify(
            f"{protected}.{payload}".encode(), public, jwt.utils.base64url_decode(signature)
        )
        await client.controls("POST", "/release")
        async with asyncio.timeout(10):
            while True:
                status, _, body = await client.call(
                    "/api/v1/transactions/status", "transaction.status", {"transactionId": transaction}
                )
                found = json.loads(body)
                found = found.get("data", found)
                if found["status"] == "COMPLETED":
                    break
        assert found["counts"] == {"total": 2, "succeeded": 2, "failed": 0}
        _, ledger = await client.controls("GET", "/ledger")
        assert ledger["creates"] == {"BESS001": 1, "BESS002": 1}
        assert [entry["status"] for entry in ledger["requests"]][:3] == [401, 200, 202]


async def test_knobs_are_turned_while_it_runs(tmp_path):
    """A refusal and a limit by the control API; a wrong knob changes nothing and is named."""
    async with running(tmp_path) as client:
        await client.login()
        status, told = await client.controls("PATCH", "/knobs", {"answer_delay_s": 0, "no_such_knob": 1})
        assert status == 400
        assert "no_such_knob" in told["problems"][0]
        await client.controls("PATCH", "/knobs", {"refuse": {"BESS002": {"code": "E1"}}, "most_per_minute": 2})
        assert [(await client.create("BESS001", "BESS002"))[0] for _ in range(2)] == [202, 202]
        status, headers, _ = await client.create("BESS003")
        assert status == 429
        assert int(headers["Retry-After"]) > 0
        _, ledger = await client.controls("GET", "/ledger")
        assert ledger["outcomes"] == {"BESS001": "registered", "BESS002": "refused"}


async def test_who_is_not_let_in(tmp_path):
    """A foreign key, a wrong token and an expired one are refused, and nothing is created."""
    async with running(tmp_path) as client:
        assert (await client.create("BESS001"))[0] == 401
        await client.login()
        assert (await client.create("BESS001", key=ec.generate_private_key(ec.SECP256R1())))[0] == 401
        await client.controls("POST", "/expire-tokens")
        assert (await client.create("BESS001"))[0] == 401
        _, ledger = await client.controls("GET", "/ledger")
        assert ledger["creates"] == {}


async def test_the_same_seed_draws_the_same_ids(tmp_path):
    """Two runs with one seed answer with the same transaction ids; another seed does not, nor do runs that name none: a bridge may outlive the stand-in."""
    found = []
    for number, seed in enumerate((7, 7, 8, None, None)):
        directory = tmp_path / str(number)
        directory.mkdir()
        async with running(directory, *([] if seed is None else ["--seed", str(seed)])) as client:
            await client.login()
            found.append(json.loads((await client.create("BESS001"))[2])["transactionId"])
    assert found[0] == found[1]
    assert len(set(found)) == 4


async def test_callers_without_a_certificate_are_refused(tmp_path):
    """With --mtls the handshake asks for the certificate that the command wrote."""
    async with running(tmp_path, "--mtls") as client:
        assert await client.login() == 200
        bare = ssl.create_default_context(cafile=tmp_path / "out/ca.pem")
        with pytest.raises(aiohttp.ClientError):
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=bare)) as http:
                await http.post(f"{client.base}/api/v1/authenticate", json={})


async def test_bad_accounts_are_all_named(tmp_path):
    """Every problem of an accounts file at once, exit status 2, nothing started."""
    (tmp_path / "accounts.yaml").write_text(
        "- {name: a b, user: x}\n- {name: b, user: y, password_file: none, jwks: none}\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from bridge.cli import main; main()", "sandbox", "--accounts", str(tmp_path / "accounts.yaml"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    assert process.returncode == 2
    for part in ("0.name", "0.password_file", "0.jwks", "1: "):
        assert part in said.decode()


async def test_a_place_that_is_taken_is_said(tmp_path):
    """A port of another process, and a directory that cannot be made: status 1, one text with what would be right."""
    key = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
    (tmp_path / "password").write_text("secret")
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [key]}))
    (tmp_path / "accounts.yaml").write_text("- {name: acme, user: acme, password_file: password, jwks: keys.json}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for ports, directory, text in (
            ((port, "0"), tmp_path / "out", "cannot listen"),
            (("0", port), tmp_path / "out", "cannot listen"),
            (("0", "0"), "/proc/none", "/proc/none cannot be written"),
        ):
            process = await forked(
                "sandbox", "--accounts", tmp_path / "accounts.yaml", "--dir", directory, "--port", ports[0], "--control-port", ports[1],
                environment=os.environ,
            )  # fmt: skip
            _, told = await process.communicate()
            assert (process.returncode, told.decode().partition(":")[0]) == (1, text)
            assert "hint:" in told.decode()


@pytest.mark.parametrize("key", [None, 5, {"kty": "EC"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}])
def test_keys_that_cannot_be_used_are_a_wrong_set(key):
    """An accounts file and the control API say so; nothing is started or replaced with it."""
    with pytest.raises(ValueError, match="holds no key that can be used"):
        jwks_of(json.dumps({"keys": [key] if key else []}))
