"""`smp-bridge jws verify` is the end point's own gate: what the rows 1 to 10 have refused there is refused here for the same reason, word for word."""

import importlib.util
import inspect
import io
import json
from pathlib import Path

import pytest
import typer
from end_point import FORMS, Smp, listening, signer

from bridge.cli.jws import verify
from bridge.envelope import Algorithm, SignatureForm

# Rows that try one token after another, and what else they are given.
TESTS = {
    "test_row_1_malformed_parts": FORMS,
    "test_row_1_detached": ("default",),
    "test_row_1_flattened": ("odd",),
    "test_row_1_compact": ("compact",),
    "test_row_2_alg": ("default",),
    "test_row_3_hs256_with_the_public_key_as_secret": ("default",),
    "test_row_4_rs256_for_a_ps256_key": ("odd",),
    "test_row_4_ecdsa_edges": ("odd",),
    "test_row_5_kid": ("default",),
    "test_row_5_kids_of_another_entry": ("default",),
    "test_row_6_embedded_keys_and_urls": ("compact",),
    "test_row_7_crit": ("compact",),
    "test_row_7_crit_in_the_unprotected_part": ("odd",),
    "test_row_8_b64_false": ("odd",),
    "test_row_9_flattened_extras": ("odd",),
    "test_row_9_flattened_member_twice": ("odd",),
    "test_row_10_any_change_of_the_signed_bytes": ("odd",),
    "test_row_10_a_line_end_of_the_body_is_signed_too": ("default",),
}


def expressible(smp, body, tokens, path):
    """Whether the command can be asked the same: one token, of this entry, whose form can be told, without the blanks around it that a shell leaves."""
    if path not in (None, smp.path()):
        return False  # the command has no entries: it has the key set that it is given
    if smp.form is SignatureForm.JWS_DETACHED:
        return len(tokens) == 1
    if tokens:
        return False
    if not body or b"\xff" in body:
        return True
    return body == body.strip() and body.startswith(b"{") is (smp.form is SignatureForm.JWS_FLATTENED)


@pytest.fixture(scope="module")
def row_tests():
    file = Path(__file__).parent / "test_rows_01_to_11.py"
    spec = importlib.util.spec_from_file_location("jws_command_rows", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


@pytest.fixture(scope="module")
def rsa():
    return signer(Algorithm.PS256)


@pytest.fixture
def refused(monkeypatch):
    """What the end point has refused, and why: its key set, and body and tokens as they came."""
    found, real = [], Smp.unauthentic

    async def unauthentic(smp, reason, message, **how):
        await real(smp, reason, message, **how)
        body, tokens = message if isinstance(message, tuple) else message.sent()
        if expressible(smp, body, tokens, how.get("path")):
            found.append((reason, {"keys": [smp.key.public_jwk()]}, smp.form, body, tokens))

    monkeypatch.setattr(Smp, "unauthentic", unauthentic)
    return found


def asked(directory, monkeypatch, keys, form, body, tokens):
    """Ask the command; the reason word that it prints."""
    (directory / "keys.json").write_text(json.dumps(keys))
    payload = None
    token = body
    if form is SignatureForm.JWS_DETACHED:
        payload, [text] = directory / "payload", tokens
        payload.write_bytes(body)
        token = text.encode()
    told = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(token), "utf-8"))
    monkeypatch.setattr("sys.stderr", told)
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    with pytest.raises(typer.Exit) as ended:
        verify("-", jwks=directory / "keys.json", key=None, alg=None, payload=payload)
    assert ended.value.exit_code == 1
    return told.getvalue().strip().partition(":")[0]


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, forms in TESTS.items() for form in forms])
async def test_the_same_reason_as_at_the_end_point(tmp_path, row_tests, rsa, refused, name, form):
    """Each token that this row has refused at the end point, given to the command: refused for the same reason."""
    test = row_tests[name]
    names = inspect.signature(test).parameters
    given = {"tmp_path": tmp_path, "form": form, "rsa": rsa, "encoding": "PEM"}
    given = {one: value for one, value in given.items() if one in names}
    served = [one for one in ("smp", "detached", "flattened") if one in names]
    if served:
        async with listening(tmp_path, profile=form) as smp:
            await test(**given, **{served[0]: smp})
    else:
        await test(**given)
    assert refused, "the row refuses something that the command can be asked"
    with pytest.MonkeyPatch.context() as patched:
        words = [asked(tmp_path, patched, *one) for _, *one in refused]
    assert words == [reason for reason, *_ in refused]
