"""Signing in a hardware module by PKCS#11 (extra `hsm`): the private key never leaves it. The only module that knows the library."""

import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.serialization import load_der_public_key

from bridge.envelope import Algorithm
from bridge.errors import ConfigError, Problem, RetryLater
from bridge.keys import algorithm_of, public_jwk, thumbprint
from bridge.secret import Secret

T = TypeVar("T")

SCHEME: Final = "pkcs11:"
NEEDS: Final = (
    "needs the package python-pkcs11: pip install 'smp-bridge[hsm]', or from the source: pip install '.[hsm]'"
)
RETRY_S: Final = 5.0
_SALT_BYTES: Final = 32  # RFC 7518 section 3.5: as long as the hash


class HsmSigner:
    """One private key in a token. A session is kept; when the module forgot it, one new session is tried."""

    blocking = True  # a call may take milliseconds: it belongs on a thread

    def __init__(self, token: "Token", label: str, *, kid: str | None, alg: Algorithm | None) -> None:
        """Raises `ConfigError` where the module, the token, its PIN or the key cannot be used."""
        self._token = token
        self._label = label
        self._key: Any = None
        self._lock = threading.Lock()
        self._public = token.asked(lambda: _public(token.open(), label), f"key {label}")
        self.alg = algorithm_of(Path(f"{SCHEME}{label}"), self._public, alg)
        if self.alg is Algorithm.EDDSA:
            raise token.wrong(f"the key {label} is for EdDSA, which is not used in a token; take EC P-256 or RSA")
        self.kid = kid or thumbprint(self._public)
        self._key = token.asked(lambda: _private(token.open(), label), f"private key {label}")

    def sign(self, signing_input: bytes) -> bytes:
        """The raw signature of these bytes. Blocking. Raises `RetryLater` while the module does not sign."""
        from pkcs11.exceptions import PKCS11Error  # noqa: PLC0415 - an extra

        with self._lock:
            try:
                return self._signed(signing_input)
            except PKCS11Error:
                self._token.close()
            try:
                self._key = _private(self._token.open(), self._label)
                return self._signed(signing_input)
            except PKCS11Error as error:
                self._token.close()
                text = f"the token {self._token.name} does not sign: {type(error).__name__}"
                raise RetryLater(text, delay_s=RETRY_S) from error

    def _signed(self, signing_input: bytes) -> bytes:
        from pkcs11 import MGF, Mechanism  # noqa: PLC0415 - an extra

        if self.alg is Algorithm.ES256:
            return bytes(self._key.sign(sha256(signing_input).digest(), mechanism=Mechanism.ECDSA))
        if self.alg is Algorithm.PS256:
            how = (Mechanism.SHA256, MGF.SHA256, _SALT_BYTES)
            return bytes(self._key.sign(signing_input, mechanism=Mechanism.SHA256_RSA_PKCS_PSS, mechanism_param=how))
        return bytes(self._key.sign(signing_input, mechanism=Mechanism.SHA256_RSA_PKCS))

    def public_jwk(self) -> dict[str, Any]:
        """The public half as a JWK (RFC 7517) with kid, alg and use."""
        return public_jwk(self._public, kid=self.kid, alg=self.alg)

    def __repr__(self) -> str:
        return f"HsmSigner(kid={self.kid!r}, alg={self.alg.value}, token={self._token.name!r}, key={self._label!r})"


class Token:
    """A token of a PKCS#11 module, and our session with it."""

    def __init__(self, module: Path, name: str, pin: Secret) -> None:
        self.name = name
        self._module = module
        self._pin = pin
        self._session: Any = None

    def open(self) -> Any:
        """The session, logged in. Raises the library's errors."""
        import pkcs11  # noqa: PLC0415 - an extra

        if self._session is None:
            token = pkcs11.lib(str(self._module)).get_token(token_label=self.name)
            try:
                self._session = token.open(user_pin=self._pin.reveal())
            except (
                pkcs11.exceptions.UserAlreadyLoggedIn
            ):  # a login is the process's: another key of this token is in use
                self._session = token.open()
        return self._session

    def close(self) -> None:
        """Forget the session; the next use makes a new one."""
        session, self._session = self._session, None
        if session is not None:
            with suppress(Exception):  # it is gone already; whatever the module says of that helps nobody
                session.close()

    def asked(self, ask: Callable[[], T], what: str) -> T:
        """The result of `ask`. Raises `ConfigError` with what is wrong and what would be right, never the PIN."""
        if find_spec("pkcs11") is None:
            raise self.wrong(NEEDS)
        from pkcs11 import exceptions as they  # noqa: PLC0415 - an extra

        try:
            return ask()
        except they.NoSuchToken:
            text = f"the module has no token {self.name}; `pkcs11-tool --list-slots` names its tokens"
        except they.NoSuchKey:
            text = f"the token {self.name} has no {what}; `pkcs11-tool --login --list-objects` names its keys"
        except they.MultipleObjectsReturned:
            text = f"the token {self.name} has more than one {what}; give each a label of its own"
        except (they.PinIncorrect, they.PinInvalid, they.PinLenRange):
            text = f"the token {self.name} refuses the PIN; put the right one in place before its counter runs out"
        except they.PinLocked:
            text = f"the PIN of the token {self.name} is locked; its security officer can set a new one"
        except (they.PKCS11Error, RuntimeError, OSError) as error:
            text = f"the token {self.name} cannot be used: {type(error).__name__}"
        self.close()
        raise self.wrong(text)

    def wrong(self, text: str) -> ConfigError:
        """A problem of this module."""
        return ConfigError([Problem(file=str(self._module), text=text)])


def _public(session: Any, label: str) -> Any:
    from pkcs11 import KeyType, ObjectClass  # noqa: PLC0415 - an extra
    from pkcs11.util.ec import encode_ec_public_key  # noqa: PLC0415
    from pkcs11.util.rsa import encode_rsa_public_key  # noqa: PLC0415

    found = session.get_key(object_class=ObjectClass.PUBLIC_KEY, label=label)
    rsa = found.key_type is KeyType.RSA
    return load_der_public_key(encode_rsa_public_key(found) if rsa else encode_ec_public_key(found))


def _private(session: Any, label: str) -> Any:
    from pkcs11 import ObjectClass  # noqa: PLC0415 - an extra

    return session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=label)
