"""Write a software bill of materials (CycloneDX 1.6, JSON) of the service from the lock and from what is installed; `make sbom`: sbom.py [OUT].

Packages of the service are `required`, those of its extras `optional`. Each carries the hashes of all files that the lock lets in, and its licence as its own metadata says it.
"""

import importlib.metadata as installed
import sys
import tomllib
import uuid
from hashlib import sha256
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pins import EXTRAS, LOCKS, PYPROJECT, ROOT, pins_of

OUT = ROOT / "dist/smp-bridge.cdx.json"
_DECLARED = LicenseAcknowledgement.DECLARED


def licences(name):
    """What a package says of its licence: the SPDX expression, else its classifiers, else the text of its old field on one line."""
    meta = installed.metadata(name)
    if expression := meta.get("License-Expression"):
        return [LicenseFactory().make_with_expression(expression, acknowledgement=_DECLARED)]
    named = [
        line.rsplit(" :: ", 1)[-1]
        for line in meta.get_all("Classifier", [])
        if line.startswith("License :: ") and line.count(" :: ") > 1
    ]
    named = named or [line.strip() for line in (meta.get("License") or "").splitlines()[:1] if line.strip()]
    return [LicenseFactory().make_from_string(text, license_acknowledgement=_DECLARED) for text in sorted(set(named))]


def needs(name, extras):
    """The names that an installed package needs here, with these extras of it, and the extras that it asks for in turn."""
    for line in installed.requires(name) or ():
        wanted = Requirement(line)
        environments = [{"extra": extra} for extra in ("", *extras)]
        if wanted.marker is None or any(wanted.marker.evaluate(environment) for environment in environments):
            yield canonicalize_name(wanted.name), frozenset(wanted.extras)


def component(pin, scope):
    """One package of the lock."""
    purl = PackageURL("pypi", name=pin.name, version=pin.version)
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in pin.hashes]
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(str(purl)),
        hashes=hashes,
        comment="each file of this version that the lock lets in",
    )
    return Component(
        name=pin.name, version=pin.version, type=ComponentType.LIBRARY, scope=scope, purl=purl, bom_ref=str(purl),
        licenses=licences(pin.name), external_references=[files],
    )  # fmt: skip


def bom():
    """The bill, the same for the same lock but for its time."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    root = Component(
        name=project["name"], version=project["version"], type=ComponentType.APPLICATION, bom_ref=project["name"],
        description=project["description"], licenses=[LicenseFactory().make_with_expression(project["license"])],
    )  # fmt: skip
    made = Bom(
        serial_number=uuid.uuid5(
            uuid.NAMESPACE_OID, sha256(b"".join(path.read_bytes() for path in sorted(LOCKS.glob("*.txt")))).hexdigest()
        )
    )
    made.metadata.component = root
    required = [pin for pin in pins_of("runtime") if pin.holds(None)]
    names = {pin.name for pin in required}
    optional = {
        pin.name: pin
        for extra in EXTRAS
        for pin in pins_of(extra, alone=True)
        if pin.holds(None) and pin.name not in names
    }
    parts = {pin.name: component(pin, ComponentScope.REQUIRED) for pin in required}
    parts |= {name: component(pin, ComponentScope.OPTIONAL) for name, pin in optional.items()}
    for one in parts.values():
        made.components.add(one)
    direct = {canonicalize_name(Requirement(line).name) for line in _asked(project)}
    made.register_dependency(root, [parts[name] for name in sorted(direct)])
    for name, one in parts.items():
        extras = _extras(project, name)
        made.register_dependency(one, [parts[other] for other, _ in needs(name, extras) if other in parts])
    return made


def _asked(project):
    return [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]


def _extras(project, name):
    """The extras of a package that we ask for (`psycopg[binary]`)."""
    found = [Requirement(line) for line in _asked(project)]
    return {extra for wanted in found if canonicalize_name(wanted.name) == name for extra in wanted.extras}


def main():
    """Write it whole or not at all."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    out.parent.mkdir(parents=True, exist_ok=True)
    made = bom()
    temporary = out.with_name(f"{out.name}.part")
    temporary.write_text(JsonV1Dot6(made).output_as_string(indent=2) + "\n")
    temporary.replace(out)
    print(f"{len(made.components)} packages in {out}")


if __name__ == "__main__":
    main()
