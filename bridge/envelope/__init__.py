"""Signed JSON: three JWS forms and one of plain headers with a certificate, over exact bytes; strict gates, a strict JSON parser. Pure; handed its signer and its keys."""

from bridge.envelope.gate import Verified, unwrap, verify
from bridge.envelope.json import BodyRefused, parse_strict
from bridge.envelope.keys import Algorithm, PublicKey, Signer
from bridge.envelope.reasons import Refusal, SignatureRefused
from bridge.envelope.sign import Signed, sign
from bridge.profile.words import SignatureForm

__all__ = [
    "Algorithm",
    "BodyRefused",
    "PublicKey",
    "Refusal",
    "SignatureForm",
    "SignatureRefused",
    "Signed",
    "Signer",
    "Verified",
    "parse_strict",
    "sign",
    "unwrap",
    "verify",
]
