"""Which of the servers of a redundant set is connected to: the first that is healthy, by the service level that each states (OPC 10000-4, 6.6.2.4.2)."""

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from adapters.opcua.config import OpcUaOptions, Policy
from adapters.opcua.library import ua
from adapters.opcua.link import Link, log
from adapters.opcua.words import printable
from bridge.api import Certified, Clock, LinkError, LinkRefused, PeerCertificate, unseen

SERVICE_LEVEL: Final = ua.NodeId(ua.ObjectIds.Server_ServiceLevel)
HEALTHY: Final = 200  # 200 to 255; below stand degraded, no data and maintenance
_UNSTATED: Final = 255


class Reached(NamedTuple):
    """A server that let us in, and the service level that it states, 255 where it states none."""

    link: Link
    level: int


async def connect(options: OpcUaOptions, clock: Clock, certified: Certified = unseen) -> Reached:
    """Try the servers in their order; the first healthy one is taken, else the best that was reached. Raises `LinkError` or `LinkRefused`.

    `certified` is told of the certificate of the one that is taken.
    """
    best: Reached | None = None
    certificates: dict[str, PeerCertificate] = {}
    failures: list[tuple[str, LinkError]] = []
    for url in options.urls:
        try:
            reached = await _reach(options, clock, url, partial(certificates.__setitem__, url))
        except LinkError as error:
            failures.append((url, error))
            continue
        except BaseException:
            if best is not None:
                await best.link.close()
            raise
        worse, best = _ranked(best, reached)
        if worse is not None:
            await worse.link.close()
        if best.level >= HEALTHY:
            break
    if best is None:
        raise _nobody(failures)
    if best.link.url in certificates:
        certified(certificates[best.link.url])
    if best.link.url != options.url:
        reason = "; ".join(f"{url}: {error}" for url, error in failures) or "its service level is low"
        log.warning("opcua_other_server", extra={"url": best.link.url, "level": best.level, "reason": reason})
    return best


async def _reach(options: OpcUaOptions, clock: Clock, url: str, certified: Certified = unseen) -> Reached:
    link = Link(options, clock, url, certified)
    try:
        await link.open()
        level = await _level(link) if len(options.urls) > 1 else _UNSTATED
    except BaseException:
        await link.close()
        raise
    return Reached(link, level)


async def _level(link: Link) -> int:
    (value,) = await link.read_values([SERVICE_LEVEL])
    return stated_level(value)


def stated_level(value: object) -> int:
    """The service level in a DataValue; a server that has none, or states nonsense, is not blamed for it."""
    variant, status = getattr(value, "Value", None), getattr(value, "StatusCode", None)
    content = variant.Value if variant is not None and (status is None or status.is_good()) else None
    return content if isinstance(content, int) and 0 <= content <= _UNSTATED else _UNSTATED


def _ranked(one: Reached | None, other: Reached) -> tuple[Reached | None, Reached]:
    """The worse and the better; the earlier one where they are alike."""
    if one is None:
        return None, other
    return (one, other) if other.level > one.level else (other, one)


def _nobody(failures: Sequence[tuple[str, LinkError]]) -> LinkError:
    """Why no server was reached. It is a refusal only where all refused: else a short wait may be enough."""
    if len(failures) == 1:
        return failures[0][1]
    kind = LinkRefused if all(isinstance(error, LinkRefused) for _, error in failures) else LinkError
    hint = next((error.hint for _, error in failures if error.hint), "")
    return kind(
        "none of the redundant servers can be used: " + "; ".join(str(error) for _, error in failures), hint=hint
    )


async def shake_hands(options: OpcUaOptions, clock: Clock) -> str:
    """Open a secured session with each server as the configured user and close it again; says how. Raises `LinkRefused` or `LinkError`."""
    for url in options.urls:
        await (await _reach(options, clock, url)).link.close()
    security, several = options.security, f" ({len(options.urls)} servers)" if len(options.urls) > 1 else ""
    if security.policy is Policy.NONE:
        return f"connected without any protection{several}"
    user = security.user or ("the user's certificate" if security.user_certificate is not None else "anonymous")
    return f"the EMS and this host trust each other: {security.policy.value}, {security.mode.value}, as {printable(user)}{several}"
