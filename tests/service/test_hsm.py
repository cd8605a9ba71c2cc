"""Signing in a hardware module: SoftHSM holds the keys, and the whole service signs, rotates and waits as with any other key."""

import asyncio
import json
import threading
import time
from pathlib import Path

import pkcs11
import pytest
from certificates import NOW, agreed, authority, certificate, rsa_key, thumbprint
from cryptography.hazmat.primitives.serialization import Encoding
from end_point import ACME, listening
from private_files import write_private_file
from service import PARTICIPANT, fill, linked, service, until_words
from softhsm import MODULE, PIN, softhsm

from bridge.cli import keys as command
from bridge.envelope import Algorithm, SignatureForm, certified, sign, verify
from bridge.envelope.certified import Fields, Target
from bridge.envelope.keys import blocks
from bridge.errors import ConfigError
from bridge.hsm import HsmSigner, Token
from bridge.keys import certify, public_from_jwk
from bridge.market import endpoint
from bridge.secret import Secret


@pytest.fixture(scope="module")
def token():
    """A token with two EC keys and one RSA key."""
    return softhsm()


def signer(label, *, alg=None, name="acme", pin=PIN):
    return HsmSigner(Token(MODULE, name, Secret(pin)), label, kid=None, alg=alg)


@pytest.mark.parametrize(
    ("label", "alg"), [("sign-1", Algorithm.ES256), ("rsa", Algorithm.PS256), ("rsa", Algorithm.RS256)]
)
def test_what_the_token_signs_verifies(token, label, alg):
    """Each algorithm by the public half that it shows; after the module forgot the session too."""
    made = signer(label, alg=alg)
    keys = {made.kid: public_from_jwk(Path("hsm"), made.public_jwk())}
    for _ in range(2):
        body = sign(SignatureForm.JWS_COMPACT, b"payload", made, {}).body
        assert verify(SignatureForm.JWS_COMPACT, body, [], keys).payload == b"payload"
        made._token._session.close()
    assert PIN not in repr(made)


def test_a_key_in_a_token_with_a_certificate(token, tmp_path):
    """Where calls show a certificate, the key that it belongs to may be in a token."""
    made = signer("rsa", alg=Algorithm.RS256)
    shown = certificate(key=rsa_key(), issuer=authority(), public=made._public)
    (tmp_path / "crt.pem").write_bytes(shown.public_bytes(Encoding.PEM))
    ours, target = certify(made, tmp_path / "crt.pem"), Target("POST", "https://smp.example/x")
    assert blocks(ours)
    at_ns = int(NOW.timestamp()) * 10**9
    fields = Fields(*([value] for value in certified.sign(target, b"{}", ours, at_ns=at_ns)))
    assert certified.verify(target, b"{}", fields, agreed=agreed(), keys={}, now_ns=at_ns).kid == thumbprint(shown)


def test_what_is_wrong_is_said(token, tmp_path):
    """Token, key and PIN each get a clear error that never holds the PIN."""
    for how, text in (
        ({"label": "sign-9"}, "the token acme has no key sign-9"),
        ({"label": "sign-1", "name": "other"}, "the module has no token other"),
        ({"label": "sign-1", "alg": Algorithm.PS256}, "does not fit PS256"),
    ):
        with pytest.raises(ConfigError, match=text):
            signer(**how)
    library = tmp_path / "none.so"
    library.write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        HsmSigner(Token(library, "acme", Secret(PIN)), "sign-1", kid=None, alg=None)
    assert PIN not in str(caught.value)


async def test_the_service_signs_rotates_and_waits(token, tmp_path, monkeypatch, capsys):
    """Calls are signed in the token; the next key of the token takes over without a restart; while the token is away calls wait, and then leave."""
    pin = write_private_file(tmp_path / "pin", PIN)
    hsm = {"module": str(MODULE), "token": "acme", "key": "sign-1", "pin": {"file": str(pin)}}
    async with service(tmp_path, entry={"hsm": hsm, "signing_key": None}) as made:
        first, second = signer("sign-1"), signer("sign-2")
        made.sandbox.accounts.know(PARTICIPANT, {"keys": [first.public_jwk(), second.public_jwk()]})
        ems = await linked(made)

        async def go(number):
            (place,) = fill(ems, 1, first=number)
            ems.request("assets", place)
            await until_words(ems, [place], {3: 1})
            views = await made.read(lambda journal: journal.submissions(limit=1))
            events = await made.read(lambda journal: journal.events(views[0].id))
            return next(event.data["kid"] for event in events if "kid" in event.data)

        assert await go(1) == first.kid

        monkeypatch.setattr(command, "loaded", lambda _: made.config())
        who = {"by": "Ada", "reason": "yearly", "config": Path("config")}
        file = Path("pkcs11:sign-2")
        await asyncio.to_thread(command.import_, file, PARTICIPANT, active=False, days=0, **who)
        await asyncio.to_thread(command.jwks, None, alg=None, participant=PARTICIPANT, config=Path("config"))
        printed = capsys.readouterr().out
        assert printed.startswith(f"{second.kid}: next key of ours\n")
        assert [key["kid"] for key in json.loads(printed.partition("\n")[2])["keys"]] == [first.kid, second.kid]
        await asyncio.to_thread(command.rotate, PARTICIPANT, smp=False, kid="", grace="7d", **who)
        ring = made.host._market[PARTICIPANT].keys._ring
        async with asyncio.timeout(10):
            while ring.signer.kid != second.kid:
                await asyncio.sleep(0.01)
        assert await go(2) == second.kid

        tokens = ring.signer.current._token
        opened, away = Token.open, []

        def gone(self):
            if self is tokens:
                away.append(1)
                raise pkcs11.exceptions.DeviceError
            return opened(self)

        monkeypatch.setattr(Token, "open", gone)
        tokens._session.close()
        (place,) = fill(ems, 1, first=3)
        ems.request("assets", place)
        await made.until_states("CONFIRMED", "CONFIRMED", "WAITING")
        async with asyncio.timeout(10):
            while not away:
                await asyncio.sleep(0.01)
        monkeypatch.setattr(Token, "open", opened)
        await until_words(ems, [place], {3: 1})


def receipt_of(smp, made, answer):
    """Status, and whose message the receipt names, once its signature is that of the token's key."""
    status, headers, body = answer
    tokens = [headers[name] for name in headers if name.lower() == smp.profile.signature_header.lower()]
    verified = verify(smp.form, body, tokens, {made.kid: public_from_jwk(Path("hsm"), made.public_jwk())})
    return status, smp.wire.read_ack(verified.payload).message_id


async def test_receipts_are_signed_in_the_token_and_never_on_the_loop(token, tmp_path, monkeypatch):
    """`sign_acks` with a slow module: others have the loop meanwhile. While it hangs or is away SMP is told to come again; the message is stored, and its repeat gets the receipt."""
    made, threads = signer("sign-1"), []
    signed = HsmSigner._signed
    wait_s, away = [0.0], []

    def slowly(self, signing_input):
        threads.append(threading.current_thread().name)
        if away:
            raise pkcs11.exceptions.DeviceError
        time.sleep(wait_s[0])
        return signed(self, signing_input)

    monkeypatch.setattr(HsmSigner, "_signed", slowly)
    async with listening(tmp_path, sign_with=made, signature={"sign_acks": True}) as smp:

        async def send(name):
            return await smp.send(*smp.seal(smp.draft(message_id=name)).sent())

        assert receipt_of(smp, made, await send("m-1")) == (smp.profile.spec.ack.status, "m-1")
        wait_s[0] = 0.5
        turns, sending = 0, asyncio.get_running_loop().create_task(send("m-2"))
        while not sending.done():
            await asyncio.sleep(0.005)
            turns += 1
        assert receipt_of(smp, made, await sending) == (smp.profile.spec.ack.status, "m-2")
        assert turns > 20
        assert {name.rpartition("_")[0] for name in threads} == {f"sign-{ACME}"}

        monkeypatch.setattr(endpoint, "RECEIPT_S", 0.2)
        status, headers, _ = await send("m-3")
        assert (status, "Retry-After" in headers) == (503, True)
        monkeypatch.setattr(endpoint, "RECEIPT_S", 10.0)
        wait_s[0] = 0.0
        away.append(1)
        assert (await send("m-3"))[0] == 503
        away.clear()
        assert receipt_of(smp, made, await send("m-3")) == (200, "m-3")
