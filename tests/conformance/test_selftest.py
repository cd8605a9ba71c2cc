"""The rows of DOMAIN 9 notice what they are there for: each of the gate's checks is taken out, one at a time, and each row that it is there for turns red."""

import functools
import importlib.util
import inspect
from pathlib import Path
from typing import Any, NamedTuple

import certificates
import pytest
from end_point import listening, public, signer
from taken_out import Listed, Statement, raises

from bridge.envelope import Algorithm, PublicKey, base64url, certified, gate, json
from bridge.journal.keys import KeyState
from bridge.market import endpoint, flood, returns
from bridge.market.endpoint import ReturnsEndpoint
from bridge.market.returns import ReturnReader


class Row(NamedTuple):
    """A test of a row, the profile it is tried under, and what it is given."""

    test: str
    form: str = "default"
    given: Any = {}

    def __str__(self):
        return f"{self.test.removeprefix('test_')} {self.form}"


DIP = "dip-like"
EXPIRED = {"changes": {"expires_ns": 60}, "later_s": 60, "reason": "key_expired"}
REVOKED = {"changes": {"state": KeyState.REVOKED}, "later_s": 0, "reason": "key_revoked"}
EARLY = {"form": "default", "offset_s": 301, "taken": False}
OLD = {"form": "default", "offset_s": -301, "taken": False}
REPLAYED = {"form": "odd", "mode": "event", "past_s": 8 * 86400}


def jws(*tests, form="default", **given):
    """These tests under a form of JWS."""
    return tuple(Row(test, form, given) for test in tests)


def dip(*tests, **given):
    """These tests under the profile whose messages carry certificates."""
    return tuple(Row(test, DIP, given) for test in tests)


PARTS = jws("test_row_1_malformed_parts")
NUMBERS = jws("test_row_20_numbers")

LISTED = {
    Listed(gate, "HEADER_CHECKS", "_check_alg"): jws("test_row_2_alg", "test_row_4_ecdsa_edges"),
    Listed(gate, "HEADER_CHECKS", "_check_embedded"): jws("test_row_6_embedded_keys_and_urls"),
    Listed(gate, "HEADER_CHECKS", "_check_crit"): jws("test_row_7_crit", "test_row_8_b64_false"),
    Listed(gate, "HEADER_CHECKS", "_check_b64"): jws("test_row_8_b64_false"),
    Listed(gate, "HEADER_CHECKS", "_check_kid"): jws("test_row_5_kid"),
    Listed(gate, "KEY_CHECKS", "_check_alg_of_key"): jws("test_row_4_ecdsa_edges", "test_row_4_rs256_for_a_ps256_key"),
    Listed(gate, "KEY_CHECKS", "_check_use"): jws("key_that_is_for_encryption"),
    Listed(gate, "KEY_CHECKS", "_check_length"): jws("test_row_4_ecdsa_edges"),
    Listed(gate, "SIGNATURE_CHECKS", "_check_signature"): jws(
        "test_row_10_any_change_of_the_signed_bytes",
        "test_row_10_a_line_end_of_the_body_is_signed_too",
        "test_row_11_signature_of_another_valid_message",
        "test_row_12_another_participants_key",
        "test_row_19_duplicate_members_of_the_body",
    ),
    Listed(gate, "SIGNATURE_CHECKS", "_check_barred"): jws("test_row_13_keys_that_are_past", **REVOKED)
    + jws("test_row_13_keys_that_are_past", **EXPIRED),
    Listed(certified, "CERTIFICATE_CHECKS", "_check_agreed"): dip(
        "test_row_12_certificate_of_another_participant", "test_row_12_chaining_but_another_subject"
    ),
    Listed(certified, "CERTIFICATE_CHECKS", "_check_key"): dip("test_row_4_a_weak_key"),
    Listed(certified, "CERTIFICATE_CHECKS", "_check_use"): dip("test_row_13_not_for_signing"),
    Listed(certified, "CERTIFICATE_CHECKS", "_check_length"): dip("test_row_4_other_algorithms"),
    Listed(certified, "PROOF_CHECKS", "_check_chain"): dip("test_row_13_not_chained"),
    Listed(certified, "PROOF_CHECKS", "_check_signature"): dip(
        "test_row_10_certificates_any_change",
        "test_row_11_method_address_and_message",
        "test_row_12_certificates_path_of_another",
        "test_row_4_other_algorithms",
    ),
    Listed(certified, "PROOF_CHECKS", "_check_dates"): dip("test_row_13_out_of_date", "test_row_13_its_last_second"),
    Listed(certified, "PROOF_CHECKS", "_check_barred"): dip("test_row_13_revoked"),
    Listed(returns, "RECIPIENT_CHECKS", "_check_recipient"): jws("test_row_12_path_of_another")
    + jws("test_row_12_not_for_us", member="recipient", value="OTHER", reason="wrong_recipient"),
    Listed(returns, "RECIPIENT_CHECKS", "_check_sender"): jws(
        "test_row_12_not_for_us", member="sender", value="OTHER", reason="wrong_sender"
    ),
    Listed(returns, "RECIPIENT_CHECKS", "_check_environment"): jws(
        "test_row_12_not_for_us", member="environment", value="LIVE", reason="wrong_environment"
    ),
    Listed(returns, "TIME_CHECKS", "_check_timestamp"): jws("test_row_14_strange_times")
    + jws("test_row_14_strange_numbers_of_time", form="odd"),
    Listed(returns, "TIME_CHECKS", "_check_future"): jws("test_row_14_out_of_the_window_by_event", form="odd")
    + jws("test_row_14_freshness_by_attempt", **EARLY)
    + jws("test_row_37_time_jumps_back"),
    Listed(returns, "TIME_CHECKS", "_check_age"): jws("test_row_14_out_of_the_window_by_event", form="odd")
    + jws("test_row_14_freshness_by_attempt", **OLD)
    + jws("test_row_16_replay_after_the_window", **REPLAYED),
    Listed(endpoint, "MEDIA_CHECKS", "_check_coding"): jws("test_row_23_compressed_bodies"),
    Listed(endpoint, "MEDIA_CHECKS", "_check_type"): jws("test_row_27_media_types"),
    Listed(endpoint, "MEDIA_CHECKS", "_check_charset"): jws("test_row_27_media_types"),
}


def raised(module, function, reason, rows, nth=1, error="SignatureRefused", after=""):
    """The place where this function refuses something, and its rows."""
    return {Statement(module, function, f"raise {error}({reason}){after}", nth): rows}


def answered(function, answer, rows, nth=1, after=""):
    """The same for the end point itself."""
    return raised(endpoint, function, answer, rows, nth, "_Answer", after)


FROM = " from error"
BODY = functools.partial(raised, json, error="BodyRefused")
HERE, RECEIVE = ReturnsEndpoint.__name__, f"{ReturnsEndpoint.__name__}._receive"
READ = f"{ReturnReader.__name__}.read"
FLOOD = dip("test_row_36_a_flood", kind="unsigned") + jws("test_row_36_a_flood_of_bad_signatures")
STATEMENTS = {
    # a message taken apart
    **raised(base64url, "decode", "'not base64url'", PARTS, error="ValueError"),
    **raised(base64url, "decode", "'stray bits at the end'", PARTS, error="ValueError"),
    **raised(gate, "take_apart", "Refusal.NO_SIGNATURE", jws("test_row_1_detached")),
    **raised(gate, "take_apart", "Refusal.TWO_SIGNATURES", jws("test_row_1_detached")),
    **raised(gate, "take_apart", "Refusal.TWO_SIGNATURES", jws("test_row_1_flattened", form="odd") + jws("test_row_1_compact"), 2),
    **raised(gate, "take_apart", "Refusal.NO_SIGNATURE", jws("test_row_1_flattened", form="odd") + jws("test_row_1_compact"), 2),
    **raised(gate, "detached", "Refusal.TOO_LARGE", PARTS),
    **raised(gate, "detached", "Refusal.PAYLOAD_PRESENT", jws("test_row_1_detached")),
    **raised(gate, "flattened", "Refusal.EXTRA_MEMBER", jws("test_row_9_flattened_extras", "test_row_7_crit_in_the_unprotected_part", form="odd")),
    **raised(gate, "flattened", "Refusal.NO_SIGNATURE if 'signature' in missing else Refusal.MALFORMED", jws("test_row_1_flattened", form="odd")),
    **raised(gate, "flattened", "Refusal.MALFORMED", jws("test_row_1_flattened", form="odd")),
    **raised(gate, "_three", "Refusal.MALFORMED", jws("test_row_1_detached") + jws("test_row_1_compact")),
    **raised(gate, "_parts", "Refusal.TOO_LARGE", PARTS + jws("test_row_5_kid")),
    **raised(gate, "_parts", "Refusal.NO_SIGNATURE", PARTS),
    **raised(gate, "_ascii", "Refusal.MALFORMED", jws("test_row_1_compact"), after=FROM),
    **raised(gate, "_decode", "Refusal.BASE64URL", PARTS, after=FROM),
    **raised(gate, "_object", "reason", PARTS, after=FROM),
    **raised(gate, "_object", "reason", PARTS),
    Statement(gate, "_object", r"if '\\u' in text:"): PARTS + jws("test_row_27_surrogates_where_the_header_says_who", form="odd"),
    **raised(gate, "_members", "Refusal.DUPLICATE_MEMBER", jws("test_row_19_duplicate_members_of_the_protected_header") + jws("test_row_9_flattened_member_twice", form="odd")),
    **raised(gate, "_constant", "f'{name} is not JSON'", PARTS, error="ValueError"),
    **raised(gate, "verify_parts", "Refusal.KID_UNKNOWN", jws("test_row_5_kid", "test_row_5_kids_of_another_entry", "test_row_12_another_participants_key")),
    **raised(certified, "Judged.key", "Refusal.ALG_NOT_ALLOWED", dip("test_row_4_other_algorithms")),
    **raised(certified, "take_apart", "Refusal.CONTENT_HASH", dip("test_row_10_certificates_any_change", "test_row_11_method_address_and_message")),
    **raised(certified, "take_apart", "Refusal.CERTIFICATE_MALFORMED", dip("test_row_1_certificate"), after=FROM),
    **raised(certified, "_one", "missing", dip("test_row_1_headers")),
    **raised(certified, "_one", "twice", dip("test_row_1_headers")),
    **raised(certified, "_one", "Refusal.TOO_LARGE", dip("test_row_1_headers")),
    **raised(certified, "_decoded", "reason", dip("test_row_1_base64"), after=FROM),
    **raised(certified, "_decoded", "reason", dip("test_row_1_base64")),
    **raised(certified, "_der", "Refusal.CERTIFICATE_MALFORMED", dip("test_row_1_certificate")),
    **raised(certified, "_moment_ns", "Refusal.DATE_MALFORMED", dip("test_row_14_no_date")),
    **raised(certified, "_moment_ns", "Refusal.DATE_MALFORMED", dip("test_row_14_no_date"), after=FROM),
    # strict JSON
    **BODY("parse_strict", "'byte_order_mark'", jws("test_row_27_whole_bodies")),
    **BODY("parse_strict", "'not_utf8'", jws("test_row_27_texts", "test_row_27_whole_bodies"), after=FROM),
    **BODY("parse_strict", "'not_json'", NUMBERS + jws("test_row_21_an_unending_text"), after=FROM),
    **BODY("_check_structure", "'too_deep'", jws("test_row_21_nesting")),
    **BODY("_check_structure", "'too_many_values'", jws("test_row_21_a_list_of_a_million")),
    **BODY("_members", "'duplicate_member'", jws("test_row_19_duplicate_members_of_the_body", "test_row_19_the_transaction_id_twice")),
    **BODY("_constant", "'not_a_number'", NUMBERS),
    **BODY("_integer", "'negative_zero'", NUMBERS),
    **BODY("_integer", "'integer_too_large'", NUMBERS),
    **BODY("_real", "'not_a_number'", NUMBERS),
    **BODY("_real", "'negative_zero'", NUMBERS),
    **BODY("_check_surrogates", "'lone_surrogate'", jws("test_row_27_texts")),
    **raised(returns, READ, "400, 'no_message_id'", jws("test_row_27_whole_bodies"), error="MessageRefused"),
    **raised(returns, READ, "400, 'message_id_too_long'", jws("test_row_27_an_id_that_no_index_holds"), error="MessageRefused"),
    # the end point itself
    **answered(RECEIVE, "404, 'unknown_path'", jws("test_row_28_paths")),
    **answered(RECEIVE, "401, error.reason.value", jws("test_row_2_alg"), after=FROM),
    **answered(RECEIVE, "429, 'flood', retry_after_s=error.retry_after_s", FLOOD, after=FROM),
    **answered(RECEIVE, "400, error.reason", NUMBERS, after=FROM),
    **answered(RECEIVE, "error.status, error.reason", jws("test_row_12_path_of_another"), after=FROM),
    **answered(f"{HERE}._check_client", "403, 'client_certificate'", jws("test_row_34_client_certificates")),
    **answered(f"{HERE}._park", "409, 'same_id_other_content'", jws("test_row_17_same_id_other_content")),
    **answered(f"{HERE}._park", "503, 'journal_full'", jws("test_row_33_a_full_disk"), after=FROM),
    **answered(f"{HERE}._park", "503, 'journal_failed'", jws("test_row_33_a_disk_that_fails", what="read-only"), after=FROM),
    **answered("_read", "413, 'body_too_large'", jws("test_row_22_a_gigabyte_declared")),
    **answered("_read", "413, 'body_too_large'", jws("test_row_22_chunked_without_end"), 2),
    **answered("_read", "408, 'body_too_slow'", jws("test_row_22_a_body_that_stops"), after=FROM),
    **answered("_read", "400, 'bad_body'", jws("test_row_25_a_body_that_is_cut", framing="length", how="end"), after=FROM),
    # floods
    Statement(flood, "Flood.charge", "raise Flooded(max(1, math.ceil((1 - left) / self._per_s)))"): FLOOD,
    Statement(gate, "check_key", "charge()"): jws("test_row_36_a_flood_of_bad_signatures"),
    Statement(certified, "verify", "charge()"): dip("test_row_36_a_flood", kind="unsigned"),
    Statement(returns, READ, "flood.refund(source)"): jws("test_row_36_good_messages_are_no_flood"),
}  # fmt: skip
ROWS = LISTED | STATEMENTS
# Refusals that are no check of a message: a mistake of our own code, or what is looked for elsewhere.
ELSEWHERE = {
    "raise ValueError(f'{form.value} is no JWS; `bridge.envelope.certified` reads it')": "ours: tests/unit/test_certified.py",
    "raise BridgeError(f'the key {signer.kid} has no certificate, and this form of signature shows one')": "signing: tests/unit/test_certified.py",
    "raise _Answer(503, 'too_many_returns')": "tests/market/test_endpoint.py",
    "raise _Answer(503, 'journal_full') from full": "an alarm that finds no room",
    "raise _Answer(503, 'journal_failed') from failed": "an alarm on a disk that fails",
    "raise _Answer(503, 'receipt_not_signed') from error": "signing: tests/service/test_hsm.py",
}
MODULES = (base64url, gate, certified, json, returns, endpoint, flood)
LISTS = ((certified, "CERTIFICATE_CHECKS"), (certified, "PROOF_CHECKS"), (gate, "HEADER_CHECKS"), (gate, "KEY_CHECKS"), (gate, "SIGNATURE_CHECKS"), (returns, "RECIPIENT_CHECKS"),
         (returns, "TIME_CHECKS"), (endpoint, "MEDIA_CHECKS"))  # fmt: skip


async def key_that_is_for_encryption(smp):
    """RFC 7517 section 4.2: a key whose `use` is another one verifies nothing."""
    draft, _ = await smp.accepted()
    other = signer(kid="smp-2")
    smp.keys[other.kid] = public(other, use="enc")
    await smp.unauthentic("key_use", smp.seal(draft, other))


async def test_a_key_for_encryption_verifies_nothing(detached):
    """The one row that is told here alone is green with the gate as it is; every other one is a test of its own beside this file."""
    await key_that_is_for_encryption(detached)


@functools.cache
def rows():
    """Every test of the rows by its name."""
    found = {key_that_is_for_encryption.__name__: key_that_is_for_encryption}
    for file in sorted(Path(__file__).parent.glob("test_rows_*.py")):
        spec = importlib.util.spec_from_file_location(f"selftest_{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found |= {name: test for name, test in vars(module).items() if name.startswith("test_row")}
    return found


@functools.cache
def rsa():
    return signer(Algorithm.PS256)


def counted(monkeypatch):
    """The kid of each costly call, as the rows' own fixture has it."""
    calls, real = [], PublicKey.verify
    monkeypatch.setattr(PublicKey, "verify", lambda key, *rest: calls.append(key.kid) or real(key, *rest))
    return calls


async def told(row, directory, monkeypatch):
    """Run the row's test on an end point of its own."""
    test = rows()[row.test]
    names, given = inspect.signature(test).parameters, dict(row.given)
    makers = {
        "tmp_path": lambda: directory,
        "form": lambda: row.form,
        "rsa": rsa,
        "verified": lambda: counted(monkeypatch),
    }
    given |= {name: make() for name, make in makers.items() if name in names and name not in given}
    [*served] = names.keys() & {"smp", "detached", "flattened", "dip", "shared"}
    if not served:
        await test(**given)
        return
    key = certificates.holder() if row.form == DIP else signer()
    keys = {} if row.form == DIP else {key.kid: public(key)}
    async with listening(directory, profile=row.form, key=key, keys=keys, limits={"body_s": 1.0}) as smp:
        await test(**given, **{served[0]: smp})


def test_each_check_has_a_row():
    """A check that is added to the gate, in a list or as a refusal in its code, names the rows that it is there for."""
    declared = {Listed(module, name, check.__name__) for module, name in LISTS for check in getattr(module, name)}
    assert declared == set(LISTED)
    listed = {(check.module, check.check) for check in declared}
    written = {one for module in MODULES for one in raises(module) if (module, one.function) not in listed}
    assert {one.text for one in written if one not in STATEMENTS} == set(ELSEWHERE)
    assert {one for one in STATEMENTS if one.text.startswith("raise ")} <= written


@pytest.mark.parametrize(
    ("removed", "row"),
    [pytest.param(removed, row, id=f"{removed} {row}") for removed, found in ROWS.items() for row in found],
)
async def test_without_a_check_its_row_is_red(tmp_path, monkeypatch, removed, row):
    """The row passes with the gate as it is (it is a test of its own), and fails with this one check taken out."""
    removed.take_out(monkeypatch)
    with pytest.raises(AssertionError):
        await told(row, tmp_path, monkeypatch)
