"""How a person's data are found in recorded bytes, whatever form a protocol or a signature gave them."""

import base64
import json
import struct

import orjson
import pytest

from bridge.errors import NotPossible
from bridge.journal.terms import Terms

MPAN = "1012345678903"
BODY = json.dumps({"assetReference": "B1", "importMpan": MPAN, "controlContact": {"name": "Zoë Müller"}}).encode()


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


FORMS = {
    "text": MPAN.encode(),
    "with blanks": b"MPAN 10 1234 5678 903 of",
    "a JSON number": orjson.dumps({"mpan": int(MPAN)}),
    "a JSON float": orjson.dumps({"mpan": float(MPAN)}),
    "the whole of the top line": b"00 801 902 10 1234 5678 903".replace(b"00 801 902 ", b"00801902"),
    "a compact JWS": b".".join((b64u(b'{"alg":"PS256"}'), b64u(BODY), b64u(b"x" * 64))),
    "a flattened JWS": orjson.dumps({"payload": b64u(BODY).decode(), "signature": "x"}),
    "standard base64": base64.b64encode(b"?>" + BODY),
    "hex of bytes": json.dumps({"raw": [BODY.hex(), "good", None]}).encode(),
    "UTF-16": MPAN.encode("utf-16-be"),
    "registers": b"\x00\x01" + MPAN.encode() + b"\x00",
    "registers, bytes swapped": b"".join((MPAN + " ").encode()[at : at + 2][::-1] for at in range(0, 14, 2)),
    "registers, bytes swapped, from an odd place": b"".join(
        ("x" + MPAN).encode()[at : at + 2][::-1] for at in range(0, 14, 2)
    ),
    "a 64-bit integer": b"\x01" + struct.pack(">q", int(MPAN)),
    "a 64-bit integer, low word first": b"".join(struct.pack(">q", int(MPAN))[at : at + 2] for at in (6, 4, 2, 0)),
    "a double, little-endian": struct.pack("<d", float(MPAN)),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_mpan_is_found_in_every_form(form):
    """Also as somebody types it, with blanks."""
    assert Terms(mpans=[MPAN]).within(FORMS[form])
    assert Terms(mpans=["10 1234 5678 903"]).within(FORMS[form])
    assert not Terms(mpans=["1012345678912"]).within(FORMS[form])


@pytest.mark.parametrize(
    ("contact", "text"),
    [
        ("zoë müller", "Zoë Müller"),
        ("Zoë Müller", "ZOË MÜLLER"),
        ("Zoë Müller", "Zo\u00eb  M\u00fcller"),
        ("Ann Smith", "ann\tsmith"),
        ("ann@acme.example", "Ann@Acme.Example"),
        ("+44 7700 900123", "07700 900123"),
        ("07700900123", "+44 (7700) 900-123"),
        ("(0)7700 900123", "00447700900123"),
    ],
)
def test_a_contact_is_found_as_others_spell_it(contact, text):
    """In any case, with any blanks, a telephone number at home and abroad, plain or escaped as JSON does it."""
    terms = Terms(contacts=[contact])
    assert terms.within_text(f"before {text} after")
    assert terms.within(json.dumps({"name": f"before {text} after"}).encode().replace(b"\\t", b" "))
    assert not Terms(contacts=["Bob Miller", "01632 960001"]).within_text(text)


def test_what_is_no_single_persons_is_refused():
    """Too little, or nothing, would erase the data of others."""
    for wrong in ({"mpans": ["12345"]}, {"mpans": ["10123456789ab"]}, {"contacts": ["Ann"]}, {}):
        with pytest.raises(NotPossible):
            Terms(**wrong)


def test_bytes_of_a_stranger_end_well():
    """No input makes the search fail."""
    terms = Terms(mpans=[MPAN], contacts=["Ann Smith"])
    for data in (b"", b"\\ud83d\\uZZZZ", b"A" * 10001, b"=" * 50, bytes(range(256)) * 40, b"\\ud800" * 30):
        assert not terms.within(data)
