"""`smp-bridge sandbox`: the stand-in for SMP, to test any client against."""

import asyncio
import json
import shlex
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bridge import yaml12
from bridge.cli.check import load_here
from bridge.cli.extras import needs_extra
from bridge.cli.logs import set_up
from bridge.clock import SystemClock
from bridge.errors import BridgeError, ConfigError, Problem

if TYPE_CHECKING:
    from bridge.config import Config
    from bridge.profile import Profile
    from bridge.sandbox import Sandbox, SandboxParticipant


class _Account(BaseModel):
    """One entry of an accounts file."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    user: str = Field(min_length=1)
    password_file: Path
    jwks: Path
    sender: str = ""
    return_url: str = Field(default="", pattern=r"^(https://.*)?$")


def sandbox(
    accounts: Annotated[
        Path | None,
        typer.Option(
            help="YAML list of accounts: name, user, password_file, jwks (public keys), sender, return_url; paths relative to the file."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Instead of --accounts: take them from this bridge configuration's participants."),
    ] = None,
    directory: Annotated[
        Path,
        typer.Option(
            "--dir",
            help="Where it writes what a client needs: its authority and keys, a client certificate, one for the end point, env.sh.",
        ),
    ] = Path("sandbox"),
    profile: Annotated[
        str | None,
        typer.Option(help="default, odd, dip-like, or a profile file. With --config: that of its participants."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port of the four calls (TLS); 0 takes a free one.", min=0, max=65535)
    ] = 8444,
    control_port: Annotated[
        int, typer.Option(help="Port of the control API, on loopback only; 0 takes a free one.", min=0, max=65535)
    ] = 8445,
    environment: Annotated[str, typer.Option(help="The environment that it names in its messages.")] = "TEST",
    name: Annotated[str, typer.Option(help="How it calls itself in its messages.")] = "SMP",
    mtls: Annotated[
        bool, typer.Option("--mtls", help="Ask every caller for the client certificate written to --dir.")
    ] = False,
    return_ca: Annotated[
        Path | None,
        typer.Option(help="PEM of the authority that signed the participants' end points; its own is always trusted."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Draws every id, token and order: the same seed, the same ids, which a bridge that outlives the stand-in takes for old ones. Left out: another at each start."
        ),
    ] = None,
    knobs: Annotated[
        Path | None,
        typer.Option(help="JSON file of knobs to begin with; GET /knobs on the control port lists them all."),
    ] = None,
) -> None:
    """Run a stand-in for SMP on this machine: Authenticate, Manage Asset/Create, Manage Unit/Create, Get Transaction Status, and signed returns.

    It checks tokens and signatures, registers what it is sent and pushes results to each account's return address. Its control API turns knobs
    (delays, refusals, lost or double returns, wrong signatures, faults of the next calls) and shows its ledger. Ctrl-C ends it.
    """
    needs_extra("sandbox", "joserfc")
    if (accounts is None) == (config is None):
        raise ConfigError(
            [Problem(text="name either --accounts FILE or --config DIR")],
            hint="--config takes the participants of a bridge configuration, so that it can be tried as it stands",
        )
    if accounts is not None:
        chosen = _profile(profile or "default")
        participants = _read_accounts(accounts)
    else:
        assert config is not None
        loaded = load_here(config)
        chosen = _profile(profile) if profile else _profile_of(loaded)
        participants = _accounts_of(loaded, chosen)
    options = {
        "profile": chosen, "participants": participants, "seed": SystemRandom().getrandbits(32) if seed is None else seed, "name": name, "environment": environment, "host": host,
        "port": port, "control_port": control_port, "knobs": _knobs(knobs), "return_ca": _bytes(return_ca),
    }  # fmt: skip
    set_up("warning")
    with suppress(KeyboardInterrupt):
        # Absolute: what it says is written into a configuration, which takes paths from where it lies itself.
        asyncio.run(_serve(options, directory.absolute(), mtls=mtls))


async def _serve(options: dict[str, Any], directory: Path, *, mtls: bool) -> None:
    from bridge.sandbox import Sandbox, SandboxOptions
    from bridge.sandbox.pki import Authority

    clock = SystemClock.here()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    clients = Authority("smp-bridge sandbox clients", clock=clock)
    made = Sandbox(SandboxOptions(**options, client_ca=clients.pem if mtls else None), clock=clock)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(made)
        except ExceptionGroup as group:
            refused, rest = group.split(OSError)
            if refused is None or rest is not None:
                raise
            hint = "does another process listen there? Another --port, --control-port or --host"
            raise BridgeError(f"cannot listen: {refused.exceptions[0]}", hint=hint) from group
        try:
            _write(directory, made, clients, mtls=mtls)
        except OSError as error:
            raise BridgeError(f"{directory} cannot be written: {error.strerror}", hint="name another --dir") from error
        _say(made, directory, mtls=mtls)
        await stopped.wait()


def _environment(directory: Path, made: "Sandbox", *, mtls: bool) -> str:
    """The variables with which the sample `bridge.yaml` speaks to this stand-in."""
    named = {
        "SMP_URL": made.base_url,
        "SMP_CA": directory / "ca.pem",
        **({} if made.certificate else {"SMP_JWKS": directory / "smp.jwks.json"}),
        "RETURNS_CERTIFICATE": directory / "returns.crt.pem",
        "RETURNS_KEY": directory / "returns.key.pem",
    }
    if mtls:
        named |= {
            "SMP_CLIENT_CERTIFICATE": directory / "client.crt.pem",
            "SMP_CLIENT_KEY": directory / "client.key.pem",
        }
    return "".join(f"export SMP_BRIDGE_{name}={shlex.quote(str(value))}\n" for name, value in named.items())


def _write(directory: Path, made: "Sandbox", clients: Any, *, mtls: bool) -> None:
    from bridge.keys import write_whole

    directory.mkdir(parents=True, exist_ok=True)
    pair, own = clients.client("smp-bridge"), made.authority.server("smp-bridge")
    for name, data, mode in (
        ("ca.pem", made.ca_pem, 0o644),
        ("smp.jwks.json", json.dumps(made.jwks(), indent=2).encode(), 0o644),
        ("client.crt.pem", pair.certificate, 0o644),
        ("client.key.pem", pair.private_key, 0o600),
        ("returns.crt.pem", own.certificate, 0o644),
        ("returns.key.pem", own.private_key, 0o600),
        *((("smp.crt.pem", made.certificate, 0o644),) if made.certificate else ()),
        ("env.sh", _environment(directory, made, mtls=mtls).encode(), 0o644),
    ):
        write_whole(directory / name, data, mode=mode)


def _say(made: "Sandbox", directory: Path, *, mtls: bool) -> None:
    print(f"SMP stand-in      {made.base_url}")
    print(
        f"control API       http://127.0.0.1:{made.control_port}   (GET /knobs, PATCH /knobs, GET /ledger, POST /release ...)"
    )
    print(f"its authority     {directory / 'ca.pem'}   (a participant's `ca:`)")
    if made.certificate:
        agreed = f"{{ca: {directory / 'ca.pem'}, subjects: [CN={made.name}]}}"
        print(f"its certificate   {directory / 'smp.crt.pem'}   (a participant's `smp_certificate: {agreed}`)")
    else:
        print(f"its public keys   {directory / 'smp.jwks.json'}   (a participant's `smp_jwks:`)")
    if mtls:
        print(
            f"callers show      {directory / 'client.crt.pem'} with client.key.pem   (`client_certificate:`, `client_key:`)"
        )
    print(f"a bridge to it    . {directory / 'env.sh'}; smp-bridge run --config config")
    print("A push that fails is said here. Ctrl-C ends it.", flush=True)


def _profile(named: str) -> "Profile":
    from bridge.profile import load_profile

    return load_profile(named)


def _profile_of(loaded: "Config") -> "Profile":
    found = {entry.profile.hash: entry.profile for entry in loaded.participants.values()}
    if len(found) != 1:
        raise ConfigError(
            [Problem(text="the participants have different profiles, and a stand-in speaks one")],
            hint="choose with --profile",
        )
    return next(iter(found.values()))


def _accounts_of(loaded: "Config", profile: "Profile") -> "list[SandboxParticipant]":
    """The participants of a bridge configuration that have this profile; their returns go to the configured listener."""
    from bridge.keys import public_jwks
    from bridge.material import our_signer
    from bridge.sandbox import SandboxParticipant

    listener = loaded.host.listeners.returns
    made = []
    for entry in loaded.participants.values():
        options = entry.options
        signer = our_signer(entry)
        url = ""
        if listener is not None and listener.port:
            path = profile.return_path.replace("{participant}", entry.name)
            host = "127.0.0.1" if listener.host in {"0.0.0.0", "::"} else listener.host  # noqa: S104 - compared, not bound
            url = f"https://{host}:{listener.port}{path}"
        made.append(
            SandboxParticipant(
                name=entry.name,
                user=options.username,
                password=options.password.reveal(),
                jwks=public_jwks([signer]),
                sender=options.sender,
                return_url=url,
            )
        )
    return made


def _read_accounts(path: Path) -> "list[SandboxParticipant]":
    from bridge.sandbox import SandboxParticipant
    from bridge.sandbox.options import jwks_of

    content = _yaml(path)
    if not isinstance(content, list) or not content:
        raise ConfigError([Problem(file=str(path), text="must be a list of accounts, one at least")])
    problems: list[Problem] = []
    made = []
    for index, entry in enumerate(content):
        try:
            account = _Account.model_validate(entry)
            made.append(
                SandboxParticipant(
                    name=account.name,
                    user=account.user,
                    sender=account.sender,
                    return_url=account.return_url,
                    password=(path.parent / account.password_file).read_text(encoding="utf-8").strip(),
                    jwks=jwks_of((path.parent / account.jwks).read_bytes()),
                )
            )
        except ValidationError as error:
            problems += [
                Problem(file=str(path), path=".".join(map(str, (index, *each["loc"]))), text=each["msg"])
                for each in error.errors()
            ]
        except (OSError, ValueError) as error:
            problems.append(Problem(file=str(path), path=str(index), text=str(error)))
    if problems:
        raise ConfigError(problems)
    return made


def _yaml(path: Path) -> Any:
    try:
        return yaml12.load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([Problem(file=str(path), text=f"cannot be read: {error}")]) from error


def _knobs(path: Path | None) -> Any:
    from bridge.sandbox import Knobs

    if path is None:
        return Knobs()
    try:
        return Knobs.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError([Problem(file=str(path), text=f"cannot be read: {error.strerror}")]) from error
    except ValidationError as error:
        raise ConfigError(
            [Problem(file=str(path), path=".".join(map(str, each["loc"])), text=each["msg"]) for each in error.errors()]
        ) from error


def _bytes(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(file=str(path), text=f"cannot be read: {error.strerror}")]) from error
