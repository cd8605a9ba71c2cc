"""`smp-bridge browse`: what there is behind an address, as a table, JSON, or the draft of a site file."""

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import typer
from pydantic import ValidationError

from bridge import yaml12
from bridge.api import Adapter, Credentials, Search, Secret, Seen
from bridge.cli import browse_options as options
from bridge.cli.browse_options import Form
from bridge.cli.check import load_here
from bridge.cli.shown import plain, table, value_text
from bridge.cli.site_draft import Place, site_yaml
from bridge.clock import SystemClock
from bridge.config import AdapterMissing
from bridge.config.document import plain_text
from bridge.errors import BridgeError
from bridge.probing import quiet
from bridge.profile import Profile, load_profile
from bridge.registry import find, known
from bridge.vocabulary import load_vocabulary

_PARTICIPANT: Final = "acme-test"
_LONG: Final = 200
_QUOTED: Final = re.compile(r"`(\w+)[^`]*`")
_CALLED: Final = {
    "policy": "--policy", "mode": "--mode", "certificate": "--certificate", "private_key": "--key", "server_certificates": "--trust",
    "ca": "--trust", "url": "URL", "host": "URL", "port": "URL",
}  # fmt: skip
_WHOLE: Final = frozenset({"security", "tls"})


class _Asked(NamedTuple):
    """Whom to ask, and where a draft would belong."""

    adapter: Adapter
    options: Any
    place: Place
    profile: Profile


def browse(
    url: options.Url = "",
    config: options.ConfigDirectory = Path("config"),
    site: options.Site = "",
    adapter: options.AdapterName = "",
    form: options.As = Form.TABLE,
    as_json: options.AsJson = False,
    start: options.Start = "",
    wait_s: options.WaitS = 5.0,
    ranges: options.Ranges = None,
    units: options.Units = None,
    most: options.Most = 10_000,
    user: options.User = "",
    password_file: options.PasswordFile = None,
    password_env: options.PasswordEnv = "",
    certificate: options.Certificate = None,
    key: options.Key = None,
    trust: options.Trust = None,
    policy: options.SecurityPolicy = "",
    mode: options.Mode = "",
    participant: options.Participant = "",
) -> None:
    """Show what an EMS has: the tree of an OPC UA server, the topics heard on an MQTT broker, stated addresses of a Modbus device. Nothing is written.

    With --as site a draft of a site file is printed: objects, topics or registers that look like records, with a guess at what each field means.
    Guesses and gaps are marked PLACEHOLDER. Passwords are read from a file or the environment, never from the command line.

    Exits 0 when something was shown, 1 when there was no connection or nothing was seen, 2 when the call has to be corrected.

    smp-bridge browse opc.tcp://10.0.0.5:4840 --certificate keys/us.crt.pem --key keys/us.key.pem --trust keys/ems.der --as site > config/sites/leeds.yaml

    smp-bridge browse mqtts://10.0.0.6 --trust keys/ca.pem --user bridge --password-file keys/mqtt --filter 'acme/leeds/#' --wait 30

    smp-bridge browse modbus://10.0.0.7 --unit 1 --range holding:0-199 --range input:0-49
    """
    secret, source = _password(password_file, password_env)
    let_in = Credentials(
        user=user, password=secret, password_from=source, certificate=certificate, private_key=key,
        trusted=tuple(trust or ()), policy=policy, mode=mode,
    )  # fmt: skip
    search = Search(wait_s=wait_s, start=start, ranges=tuple(ranges or ()), units=tuple(units or ()), most=most)
    try:
        asked = _asked(url, let_in, config, site, adapter, participant)
        seen = _look(asked, search)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    _show(seen, asked, Form.JSON if as_json else form)


def _look(asked: _Asked, search: Search) -> Seen:
    browser = asked.adapter.browser
    if browser is None:
        raise BridgeError(f"the adapter for {asked.adapter.protocol} cannot be browsed")
    with quiet():
        return asyncio.run(browser.browse(asked.options, search, SystemClock.here()))


def _show(seen: Seen, asked: _Asked, form: Form) -> None:
    if not seen.rows:
        raise BridgeError(f"nothing was seen at {seen.said}", hint="; ".join(seen.notes))
    if form is Form.JSON:
        rows = [dict(zip(seen.columns, map(plain, row), strict=True)) for row in seen.rows]
        print(json.dumps({"with": seen.said, "notes": list(seen.notes), "rows": rows}, indent=2, ensure_ascii=False))
    elif form is Form.SITE:
        if not seen.flows:
            raise BridgeError(
                f"nothing at {seen.said} looks like a record",
                hint="look at the table, and write the flow by hand (README)",
            )
        print(site_yaml(asked.place, seen, asked.profile, load_vocabulary()), end="")
    else:
        for line in table(seen.columns, [_cells(row) for row in seen.rows]):
            print(line)
        print("\n".join(["", *seen.notes, seen.said]))


def _cells(row: Sequence[object]) -> list[str]:
    """Values are cut; what a row is of, and its last cell, may be as long as they need."""
    outer = {0, len(row) - 1}
    return [value_text(cell, *([_LONG] if at in outer else [])) if cell != "" else "" for at, cell in enumerate(row)]


# whom to ask ----------------------------------------------------------------------------------------------


def _asked(url: str, let_in: Credentials, config: Path, site: str, adapter: str, participant: str) -> _Asked:
    if url:
        return _by_url(url, let_in, site, adapter, participant)
    if site:
        return _by_site(config, site, adapter)
    raise ValueError("name a URL, or --site with its --config")


def _by_url(url: str, credentials: Credentials, site: str, name: str, participant: str) -> _Asked:
    scheme = url.partition("://")[0].lower()
    adapters = {word: item for item in _browsable() for word in item.browser.schemes} if "://" in url else {}  # type: ignore[union-attr]
    if scheme not in adapters:
        raise ValueError(f"{url} begins with none of {', '.join(f'{word}://' for word in _schemes())}")
    item = adapters[scheme]
    assert item.browser is not None
    given = item.browser.options(url, credentials)
    try:
        made = item.options.model_validate(dict(given))
    except ValidationError as error:
        raise ValueError("; ".join(_told(detail) for detail in error.errors(include_url=False))) from None
    place = Place(
        site=site or "new-site", adapter=name or "ems", participant=participant or _PARTICIPANT, protocol=item.protocol,
        options=_spelled(given, credentials), known=bool(participant),
    )  # fmt: skip
    return _Asked(item, made, place, load_profile("default"))


def _browsable() -> list[Adapter]:
    found = []
    for word in known():
        try:
            item = find(word)
        except AdapterMissing:
            continue
        if item.browser is not None:
            found.append(item)
    return found


def _schemes() -> list[str]:
    return sorted(word for item in _browsable() if item.browser is not None for word in item.browser.schemes)


def _told(detail: Any) -> str:
    """What is wrong with the call, by the names of its own options where there are some for the adapter's."""
    where = [part for part in detail["loc"] if isinstance(part, str)]
    last = where[-1] if where else ""
    text = _QUOTED.sub(lambda found: _CALLED.get(found[1], found[0]), plain_text(detail, detail["input"]))
    return f"{_CALLED.get(last, '.'.join(where))} {text}" if last and last not in _WHOLE else text


def _spelled(given: Any, credentials: Credentials) -> Any:
    """As a site file spells it: a secret is where it comes from, a path is whole."""
    if isinstance(given, Secret):
        return dict(credentials.password_from)
    if isinstance(given, Path):
        return str(given.absolute())
    if isinstance(given, Mapping):
        return {key: _spelled(item, credentials) for key, item in given.items()}
    return [_spelled(item, credentials) for item in given] if isinstance(given, list | tuple) else given


def _by_site(config: Path, site: str, name: str) -> _Asked:
    found = load_here(config, only=site)
    item = found.sites[site]
    if not name and len(item.adapters) > 1:
        raise ValueError(f"{site} has the adapters {', '.join(item.adapters)}; name one with --adapter")
    name = name or next(iter(item.adapters))
    if name not in item.adapters:
        raise ValueError(f"{site} has no adapter {name}; it has {', '.join(item.adapters)}")
    adapter = item.adapters[name]
    content = yaml12.load(item.file.read_text("utf-8"))
    spelled = {key: value for key, value in content["adapters"][name].items() if key != "protocol"}
    owner = next(iter(item.flows.values())).participant
    place = Place(site=site, adapter=name, participant=owner, protocol=adapter.adapter.protocol, options=spelled, known=True)  # fmt: skip
    return _Asked(adapter.adapter, adapter.options, place, found.participants[owner].profile)


def _password(file: Path | None, variable: str) -> tuple[Secret | None, Mapping[str, str]]:
    """The password, and where a site file would take it from."""
    if file is not None and variable:
        raise typer.BadParameter("give --password-file or --password-env, one of them")
    if file is not None:
        try:
            password = Secret(file.read_text("utf-8").rstrip("\r\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(
                f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
            ) from None
        return password, {"file": str(file.absolute())}
    if not variable:
        return None, {}
    if not os.environ.get(variable):
        raise typer.BadParameter(f"the environment variable {variable} is not set")
    return Secret(os.environ[variable]), {"env": variable}
