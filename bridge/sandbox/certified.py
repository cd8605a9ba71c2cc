"""Messages signed in headers, with a certificate: the platform's side. Written apart from the bridge's own code, so that one mistake cannot hide on both sides."""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from joserfc.jwk import KeySet, RSAKey

from bridge.profile import CertificateForm, Profile
from bridge.sandbox.jose import NotAuthentic
from bridge.sandbox.pki import Authority


class CertifiedKey:
    """A key of the sandbox's own and the certificate that its authority gave it."""

    def __init__(self, kid: str, *, profile: Profile, authority: Authority, subject: str) -> None:
        self.kid = kid
        self._profile = profile
        pair = authority.signing(subject)
        self._key: Any = serialization.load_pem_private_key(pair.private_key, None)
        self.certificate = pair.certificate

    def public(self) -> dict[str, Any]:
        """The public JWK, with the certificate."""
        key = RSAKey.import_key(self._key, {"kid": self.kid, "alg": "RS256", "use": "sig"})
        return {**key.as_dict(private=False), "x5c": [base64.b64encode(_der(self.certificate)).decode()]}

    def headers(
        self, method: str, url: str, body: bytes, *, at_ns: int, shown: "CertifiedKey | None" = None
    ) -> dict[str, str]:
        """The headers that sign this request; with `shown`, that key's certificate is shown in place of its own."""
        moment = datetime.fromtimestamp(at_ns // 1_000_000 / 1000, UTC).isoformat(timespec="milliseconds")
        date, digest = moment.replace("+00:00", "Z"), base64.b64encode(sha256(body).digest()).decode()
        text = f"{method};{url.lower()};{date};{digest}"
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        certificate = (shown or self).certificate
        if self._profile.spec.signature.certificate_as is CertificateForm.DER:
            certificate = _der(certificate)
        values = (base64.b64encode(signature).decode(), date, base64.b64encode(certificate).decode(), digest)
        return dict(zip(self._profile.signature_headers, values, strict=True))


def verify(profile: Profile, method: str, url: str, body: bytes, headers: Mapping[str, str], keys: KeySet) -> str:
    """The id of the key that signed this request; raises `NotAuthentic`. A participant's certificate counts where its key is one of the participant's own."""
    try:
        signature, date, shown, digest = (headers[name.lower()] for name in profile.signature_headers)
        if base64.b64encode(sha256(body).digest()).decode() != digest:
            raise NotAuthentic("the content hash is that of another body")
        raw = base64.b64decode(shown, validate=True)
        as_der = profile.spec.signature.certificate_as is CertificateForm.DER
        certificate = x509.load_der_x509_certificate(raw) if as_der else x509.load_pem_x509_certificate(raw)
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise NotAuthentic("the certificate's key is not RSA")
        text = f"{method};{url.lower()};{date};{digest}".encode()
        key.verify(base64.b64decode(signature, validate=True), text, padding.PKCS1v15(), hashes.SHA256())
    except (KeyError, ValueError, InvalidSignature) as error:
        raise NotAuthentic(f"{type(error).__name__}: {error}"[:200]) from error
    return _owner(key, keys.keys)


def _owner(key: rsa.RSAPublicKey, known: Sequence[Any]) -> str:
    thumbprint = RSAKey.import_key(key).thumbprint()
    for one in known:
        if one.thumbprint() == thumbprint:
            return str(one.kid)
    raise NotAuthentic("the certificate's key is none of the participant's")


def _der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
