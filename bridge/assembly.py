"""From the configuration to the parts that run: what the service and the commands that speak to an EMS or to SMP have in common."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from secrets import token_hex

from bridge.anchoring import Courier, Couriers, place_of
from bridge.clock import Clock
from bridge.config import ClockOptions, Config, Participant, SiteConfig
from bridge.config.references import FileSecret
from bridge.discipline import Chrony, DisciplineSource, Kernel
from bridge.flow import FlowPlan
from bridge.ids import new_message_id, submission_ids
from bridge.journal.keeper import KeptJournal
from bridge.keyring import KeyRing
from bridge.keys import public_from_jwk
from bridge.lane import RenderedItem
from bridge.mapping import compile_flow
from bridge.market.calls import CallMaker, Identity
from bridge.market.client import ClientSettings, SmpClient
from bridge.material import host_signer
from bridge.model import Kind
from bridge.platform import Exchange
from bridge.secret import Secret
from bridge.validation import Validator, compile_validator
from bridge.wire import Token, Wire


def flow_plan(config: Config, site: SiteConfig, name: str) -> FlowPlan:
    """One flow, ready to run."""
    flow = site.flows[name]
    profile = config.participants[flow.participant].profile
    severities = {rule: severity.value for rule, severity in flow.severities.items()}
    limit = profile.limits.records
    wire, kind = Wire(profile), flow.operation.kind
    largest = wire.largest(flow.operation)

    def render(item: Mapping[str, object]) -> RenderedItem | None:
        rendered = wire.render_item(kind, item)
        return rendered if len(rendered) <= largest else None

    return FlowPlan(
        site=site.name,
        name=name,
        adapter=flow.adapter,
        participant=flow.participant,
        operation=flow.operation,
        trigger=flow.trigger,
        key_field=flow.key_field,
        records=flow.records,
        submit=flow.submit,
        outcome=flow.outcome,
        mapper=compile_flow(flow, config.vocabulary),
        validator=compile_validator(profile, flow.operation.kind, severities),
        max_items=min(limit, flow.max_items or limit),
        render=render,
        linger_ns=int(flow.linger_s * 1e9),
        deadline_ns=int(flow.deadline_s * 1e9),
        budget_ns=int(flow.latency_budget_s * 1e9),
        registration_wait_s=flow.registration_wait_s,
        states=flow.states,
        error_codes=flow.error_codes,
    )


def call_maker(
    config: Config,
    entry: Participant,
    *,
    clock: Clock,
    jitter: Callable[[], float],
    keys: KeyRing,
    clock_state: Callable[[], Mapping[str, object]] = dict,
) -> CallMaker:
    """What makes and reads this participant's calls; `clock_state` is what evidence keeps of the clock at each signature."""
    return CallMaker(
        identity=identity(entry),
        profile=entry.profile,
        vocabulary=config.vocabulary,
        signer=keys.signer,
        keys=keys,
        unit_validators=_unit_validators(config, entry),
        clock=clock,
        new_message_id=new_message_id,
        new_submission=submission_ids(clock),
        jitter=jitter,
        trace_headers=_trace_headers(config, entry),
        base_url=entry.options.base_url,
        clock_state=clock_state,
    )


def _trace_headers(config: Config, entry: Participant) -> Callable[[str], Mapping[str, str]]:
    """The W3C header of a submission's trace, where traces are made and this participant's profile lets it stand in a call."""
    tracing = config.host.tracing
    if tracing is None or not entry.profile.spec.transport.traceparent:
        return lambda _: {}
    from bridge.spans import TRACEPARENT, traceparent  # noqa: PLC0415 - only where it is switched on

    ratio = tracing.sample_ratio
    return lambda submission: {TRACEPARENT: traceparent(submission, ratio)}


def _unit_validators(config: Config, entry: Participant) -> dict[tuple[str, str], Validator]:
    """The rules of each flow that makes units for this participant, whichever process reads them."""
    return {
        (site.name, flow.name): compile_validator(entry.profile, Kind.UNIT, flow.severities)
        for site in config.sites.values()
        for flow in site.flows.values()
        if flow.participant == entry.name and flow.operation.kind is Kind.UNIT
    }


def identity(entry: Participant) -> Identity:
    """Who speaks for whom in this entry's messages."""
    options = entry.options
    return Identity(
        participant=entry.name,
        sender=options.sender,
        recipient=options.recipient,
        environment=options.environment.value,
    )


def client_settings(entry: Participant) -> ClientSettings:
    """How SMP is called for this entry."""
    options, limits = entry.options, entry.profile.limits
    return ClientSettings(
        base_url=options.base_url,
        idle_s=entry.profile.keepalive_idle_s,
        connect_s=entry.profile.spec.transport.connect_s,
        tls_minimum=entry.profile.spec.transport.tls_minimum,
        answer_s=entry.profile.answer_timeout_s,
        max_answer_bytes=limits.max_answer_bytes,
        connections=limits.concurrency + 2,
        proxy=options.proxy,
        ca_file=_text(options.ca),
        certificate_file=_text(options.client_certificate),
        key_file=_text(options.client_key),
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


class Password:
    """An account's password as it is at the moment of each login: one that a file holds is read anew."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._used: Secret | None = None

    def __call__(self) -> str:
        """The password, for a login."""
        self._used = self._now()
        return self._used.reveal()

    def changed(self) -> bool:
        """Whether it is another one than at the last login."""
        return self._used is not None and self._now() != self._used

    def _now(self) -> Secret:
        return self._secret.now() if isinstance(self._secret, FileSecret) else self._secret


def login(
    maker: CallMaker, client: SmpClient, username: str, password: Callable[[], str]
) -> Callable[[], Awaitable[tuple[Exchange, Token | None]]]:
    """How this entry logs in: the exchange, and the token that it gave."""

    async def ask() -> tuple[Exchange, Token | None]:
        said = password()
        call = maker.login(username, said)
        exchange = await client.post(call.path, method=call.method, headers=call.headers, body=call.body, secret=said)
        return exchange, maker.read_login(exchange)

    return ask


def discipline_source(options: ClockOptions) -> DisciplineSource | None:
    """Who is asked about the machine's clock; None where nobody is."""
    if options.source == "kernel":
        return Kernel()
    return Chrony(options.chronyc) if options.source == "chrony" else None


def anchor_couriers(
    config: Config, journal: KeptJournal, *, clock: Clock, hold: Callable[[str], Awaitable[None]]
) -> Couriers:
    """Who brings the anchor to each place of `journal.anchors`; nobody where there is none. Raises `ConfigError`."""
    options = config.host.journal
    signer = host_signer(config) if options.anchors else None
    keys = {} if signer is None else {signer.kid: public_from_jwk(Path("host_key"), signer.public_jwk())}
    beside = options.anchor_file.parent if options.path is None else options.path.parent
    client_id = f"smp-anchor-{token_hex(4)}"  # a broker ends the connection of whoever comes with a name that is in use
    made = [
        Courier(
            name,
            place_of(place, beside=beside, client_id=client_id),
            place,
            evidence=journal.evidence(),
            journal=journal,
            clock=clock,
            hold=hold,
            signer=signer,
            keys=keys,
        )
        for name, place in options.anchors.items()
    ]
    return Couriers(made, journal)
