"""The rows of DOMAIN 9 notice what they are there for: each of the gate's checks is taken out, and its own row turns red."""

import importlib.util
import inspect
from contextlib import nullcontext
from pathlib import Path

import certificates
import pytest
from end_point import listening, public, signer

from bridge.envelope import certified, gate
from bridge.market import endpoint, returns

# Check: the profile's form, and the tests of the rows that it is there for.
ROWS = {
    (gate, "HEADER_CHECKS", "_check_alg"): ("default", "test_row_2_alg"),
    (gate, "HEADER_CHECKS", "_check_embedded"): ("default", "test_row_6_embedded_keys_and_urls"),
    (gate, "HEADER_CHECKS", "_check_crit"): ("default", "test_row_7_crit"),
    (gate, "HEADER_CHECKS", "_check_b64"): ("default", "test_row_8_b64_false"),
    (gate, "HEADER_CHECKS", "_check_kid"): ("default", "test_row_5_kid"),
    (gate, "KEY_CHECKS", "_check_alg_of_key"): ("default", "test_row_4_ecdsa_edges"),
    (gate, "KEY_CHECKS", "_check_use"): ("default", "key_that_is_for_encryption"),
    (gate, "KEY_CHECKS", "_check_length"): ("default", "test_row_4_ecdsa_edges"),
    (gate, "SIGNATURE_CHECKS", "_check_signature"): ("default", "test_row_10_any_change_of_the_signed_bytes"),
    (gate, "SIGNATURE_CHECKS", "_check_barred"): ("default", "key_that_was_revoked"),
    (certified, "CERTIFICATE_CHECKS", "_check_agreed"): ("dip-like", "test_row_12_certificate_of_another_participant"),
    (certified, "CERTIFICATE_CHECKS", "_check_key"): ("dip-like", "test_row_4_a_weak_key"),
    (certified, "CERTIFICATE_CHECKS", "_check_use"): ("dip-like", "test_row_13_not_for_signing"),
    (certified, "CERTIFICATE_CHECKS", "_check_length"): ("dip-like", "test_row_4_other_algorithms"),
    (certified, "PROOF_CHECKS", "_check_chain"): ("dip-like", "test_row_13_not_chained"),
    (certified, "PROOF_CHECKS", "_check_signature"): ("dip-like", "test_row_10_certificates_any_change"),
    (certified, "PROOF_CHECKS", "_check_dates"): ("dip-like", "test_row_13_out_of_date"),
    (certified, "PROOF_CHECKS", "_check_barred"): ("dip-like", "certificate_that_was_revoked"),
    (returns, "RECIPIENT_CHECKS", "_check_recipient"): ("default", "test_row_12_path_of_another"),
    (returns, "RECIPIENT_CHECKS", "_check_sender"): ("default", "wrong_sender"),
    (returns, "RECIPIENT_CHECKS", "_check_environment"): ("default", "wrong_environment"),
    (returns, "TIME_CHECKS", "_check_timestamp"): ("default", "test_row_14_strange_times"),
    (returns, "TIME_CHECKS", "_check_future"): ("odd", "test_row_14_out_of_the_window_by_event"),
    (returns, "TIME_CHECKS", "_check_age"): ("odd", "test_row_14_out_of_the_window_by_event"),
    (endpoint, "MEDIA_CHECKS", "_check_coding"): ("default", "test_row_23_compressed_bodies"),
    (endpoint, "MEDIA_CHECKS", "_check_type"): ("default", "test_row_27_media_types"),
    (endpoint, "MEDIA_CHECKS", "_check_charset"): ("default", "test_row_27_media_types"),
}
LISTS = ((certified, "CERTIFICATE_CHECKS"), (certified, "PROOF_CHECKS"), (gate, "HEADER_CHECKS"), (gate, "KEY_CHECKS"), (gate, "SIGNATURE_CHECKS"), (returns, "RECIPIENT_CHECKS"),
         (returns, "TIME_CHECKS"), (endpoint, "MEDIA_CHECKS"))  # fmt: skip


async def key_that_is_for_encryption(smp):
    """RFC 7517 section 4.2: a key whose `use` is another one verifies nothing."""
    draft, _ = await smp.accepted()
    other = signer(kid="smp-2")
    smp.keys[other.kid] = public(other, use="enc")
    await smp.unauthentic("key_use", smp.seal(draft, other))


async def key_that_was_revoked(smp):
    """Row 13, as `test_row_13_keys_that_are_past` has it."""
    _, good = await smp.accepted()
    known = smp.keys["smp-1"]
    smp.keys["smp-1"] = gate.PublicKey(kid=known.kid, alg=known.alg, key=known.key, barred=gate.Refusal.KEY_REVOKED)
    await smp.unauthentic("key_revoked", good, alarms=["KEY_REFUSED"])


async def certificate_that_was_revoked(smp):
    """Row 13, as `test_row_13_revoked` has it."""
    _, good = await smp.accepted()
    own = certificates.own()
    smp.keys[certificates.thumbprint(own)] = certificates.record(own, barred=gate.Refusal.KEY_REVOKED)
    await smp.unauthentic("key_revoked", good, alarms=["KEY_REFUSED"])


async def wrong_sender(smp):
    await rows()["test_row_12_not_for_us"](smp, "sender", "OTHER", "wrong_sender")


async def wrong_environment(smp):
    await rows()["test_row_12_not_for_us"](smp, "environment", "LIVE", "wrong_environment")


def rows():
    """Every test of the rows by its name."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("test_rows_*.py")):
        spec = importlib.util.spec_from_file_location(f"selftest_{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found |= {name: test for name, test in vars(module).items() if name.startswith("test_row")}
    return found | {
        test.__name__: test
        for test in (
            key_that_is_for_encryption,
            key_that_was_revoked,
            certificate_that_was_revoked,
            wrong_sender,
            wrong_environment,
        )
    }


def test_each_check_has_a_row():
    """A check that is added to the gate names the row that it is there for."""
    declared = {(module, name, check.__name__) for module, name in LISTS for check in getattr(module, name)}
    assert declared == set(ROWS)


@pytest.mark.parametrize("removed", ROWS, ids=lambda removed: removed[2].strip("_"))
async def test_without_a_check_its_row_is_red(tmp_path, monkeypatch, removed):
    """The row passes with the gate as it is, and fails with this one check taken out."""
    module, name, check = removed
    form, row = ROWS[removed]
    test = rows()[row]
    for directory, red in (("whole", False), ("without", True)):
        (tmp_path / directory).mkdir()
        if red:
            left = tuple(one for one in getattr(module, name) if one.__name__ != check)
            assert len(left) == len(getattr(module, name)) - 1
            monkeypatch.setattr(module, name, left)
        key = certificates.holder() if form == "dip-like" else signer()
        keys = {} if form == "dip-like" else {key.kid: public(key)}
        async with listening(tmp_path / directory, profile=form, key=key, keys=keys) as smp:
            with pytest.raises(AssertionError) if red else nullcontext():
                await test(**{next(iter(inspect.signature(test).parameters)): smp})
