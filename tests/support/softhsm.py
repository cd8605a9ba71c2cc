"""A token of SoftHSM with keys, one for each process of tests: the module reads its settings once, when it is loaded."""

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pkcs11
from pkcs11.util.ec import encode_named_curve_parameters

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "pin-of-the-test"


@cache
def softhsm():
    """Make the token `acme` with the EC keys `sign-1` and `sign-2` and an RSA key `rsa`; its directory."""
    directory = Path(tempfile.mkdtemp(prefix="smp-bridge-softhsm-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    (directory / "tokens").mkdir()
    conf = directory / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {directory / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    init = ["softhsm2-util", "--init-token", "--free", "--label", "acme", "--pin", PIN, "--so-pin", "of the officer"]
    subprocess.run(init, check=True, capture_output=True, timeout=60)
    with pkcs11.lib(str(MODULE)).get_token(token_label="acme").open(rw=True, user_pin=PIN) as session:
        for label in ("sign-1", "sign-2"):
            curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
            parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
            parameters.generate_keypair(store=True, label=label)
        session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label="rsa")
    return directory


def logged_out():
    """The token with nobody logged in: a login is the process's, and with one of an earlier test any PIN would do."""
    softhsm()
    pkcs11.lib(str(MODULE)).reinitialize()
