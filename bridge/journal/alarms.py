"""Alarms as rows: what people read, acknowledge and are advised; and which of them an EMS is shown as a bit.

A row stands from the first raise until it is cleared; raising it meanwhile only counts. Acknowledging says that somebody knows, and clears nothing.
What is raised again after it was cleared is a new row.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bridge.errors import NotPossible
from bridge.journal.port import AlarmCount, AlarmView
from bridge.journal.store import Row, Rows, Tx, dump

RUNBOOK: Final[Mapping[str, str]] = {
    "IN_DOUBT": "Ask the platform whether the call arrived; a return or a status settles it, otherwise `submissions resolve ID`. It is not sent again by itself, unless the profile says that the platform recognises repeats.",
    "OVERDUE": "No return came in time; polling goes on. Check that the platform can reach the end point for returns.",
    "UNRESOLVED": "Nobody could say what became of this call. Ask the platform, then `submissions resolve ID`.",
    "SET_ASIDE": "This call cannot go on by itself and stands in nobody's way; its reason says why. Mend the cause, then `submissions retry ID`, or `submissions cancel ID`.",
    "HOLD": "Nothing of this scope is sent until somebody releases it; reading and returns go on. `smp-bridge release` ends it; where the text says so, `smp-bridge journal reconcile` does, or two people who accept a changed profile (docs/access.md).",
    "ANCHOR": "The anchor outside the journal's directory, or at a place of `journal.anchors`, does not vouch for this journal; the text says why. Can it not be written: give the service the right to. Does it name more than the journal holds: `journal reconcile`.",
    "ANCHOR_PLACE": "A place off this host (`journal.anchors`) did not accept the anchor for the stated time; the text says why. Nothing waits for it, but what is sealed since then can be cut off unseen. Mend the place or its settings, and try it with `smp-bridge evidence anchor PLACE`; it is tried again by itself.",
    "ARCHIVE": "Old evidence could not be moved to the archive's directory; the text says why. Nothing is lost, but the journal does not become smaller. Give room or rights there, then `journal archive`.",
    "EVIDENCE_BROKEN": "The chain of sealed evidence is another one than the host signed before: somebody worked on the journal. Keep the file as it is, run `journal verify`, and look for who had access. Of the participant that the text names nothing is signed or exported until then.",
    "EVIDENCE_GAP": "Events are missing from the record before they were sealed: somebody or something took them out. Keep the file as it is, run `journal verify`, and look for who had access.",
    "JOURNAL_FULL": "The journal's disk or its size cap was full, and nothing was taken until there was room. Find out what filled it, and give it more.",
    "JOURNAL_LARGE": "The journal nears its size cap (`journal.max_size`); at the cap records are no longer taken. Look for submissions that never end (`submissions list`), raise the cap, or run `journal archive`.",
    "CONFLICT": "Two signed statements differ; the first one stands. Compare both with the platform.",
    "DRIFT": "The EMS now holds other values than were sent for this reference. Correct the EMS or the registration.",
    "DUPLICATE_KEY": "Two sites or flows of one participant use the same reference. Give one of them another.",
    "STUCK": "The EMS does not take the outcome. Check its link (it may hang up over an outcome; the text says so) and the rights on the outcome's addresses; it is tried again at each reconnect.",
    "CIRCUIT_OPEN": "The platform refuses our calls in a way that no single record causes, cannot be reached, leaves one call after the other in doubt, or asked for a pause of more than five minutes; nothing is lost, and it is tried again. Read the reason; compare account, addresses and profile with the platform's.",
    "ACCOUNT_STOPPED": "Logging in was refused several times; it is not tried further, so that the account is not locked. Put the right password into its file: it is tried again by itself. Where the platform locked the account, have it unlocked, then `smp-bridge release --account PARTICIPANT`.",
    "STATUS_WORD": "The platform used a word for a status or a return's result that the profile does not know. Polling goes on after a status; what a return does not say of an item itself is unknown (`submissions resolve`). Ask what it means and add it to the profile.",
    "QUARANTINE": "The platform sent a signed message that the profile does not know. It is stored and was not acted on. Compare the profile with the platform's.",
    "MISDIRECTED": "The platform signed a message for another recipient or environment and sent it here. Nothing was done. Tell the platform.",
    "CERTIFICATE_REFUSED": "A message carried a certificate that was agreed but cannot be taken: the pinned authority did not issue it, it has ended, or it is not valid yet. Ask the platform which certificate it uses now; name its authority in `smp_certificate.ca`, or take a new one with `keys import`. If the platform did not send it, somebody tries to pass for it: tell it.",
    "KEY_REFUSED": "Somebody signed a message with a key of the platform that was revoked, has expired, or is past its grace time; it was refused. Ask the platform which key it signs with: `keys list` shows what is known, `keys import` takes a new one. If the platform did not send it, its key is stolen: tell it.",
    "KEY_UNUSABLE": "The key that should sign now cannot be read, and the former one signs on; the text says why. Put its file right, then run `keys rotate` or `keys revoke` again, or start the host anew.",
    "FLOOD": "Too many messages with a bad signature came from one source; further ones of it are answered 429 before they are verified. Good messages of other sources are taken. Find out who it is; block the address at the firewall, or tell the platform if it is theirs.",
    "EXPIRED": "A certificate or key has ended; the text says which. Links and calls that need it fail, or will at the next connect. Renew it now.",
    "EXPIRES_7": "A certificate or key ends in 7 days or less; the text says which. Renew it now: `keys new` and `keys rotate` for a signing key, a new file for a certificate.",
    "EXPIRES_30": "A certificate or key ends in 30 days or less; the text says which. Have it renewed, and let the other side know it in time.",
    "EXPIRES_60": "A certificate or key ends in 60 days or less; the text says which. Plan its renewal: the other side may need weeks to let a new one in.",
    "CERTIFICATE_ENDED": "The certificate that this EMS showed has ended; the text says what follows by `on_expired_certificate` of its link. Under `stop` the link is closed and comes back by itself once the EMS shows another one; requests wait in the EMS. Under `keep` it goes on. Renew the EMS's certificate, or its authority's.",
    "CLOCK_OFFSET": "This machine's clock is wrong by the stated offset. Above `clock.hold_at` nothing is signed and calls wait until it is right; records and returns are taken. Look at the machine's NTP service and its servers; have it step the clock where it only slews.",
    "CLOCK_UNSYNCHRONISED": "Nothing synchronises this machine's clock, or it cannot be asked; the text says which. Nothing is held. Set up NTP on the machine (or on the host of a container); where somebody else answers for the clock, `clock: {source: none}`.",
    "LINK_DOWN": "There was no session with this EMS for the stated time, or none that lasted; it is tried again by itself. Look at the device, the network between, and the service's log; of one that does not last, whether another host works the same site.",
    "LINK_REFUSED": "The EMS refuses us: user, password, certificate or policy. Correct the credentials or the trust on one of the two sides; it is tried again every half minute.",
    "BEYOND_LIMIT": "The EMS offers more than its adapter keeps; the text says of which flow and how much is kept. What is beyond is left out, and requests for it are refused. Divide the flow into several by their topics or places, or take from the EMS what is not meant; the alarm ends with the connection, and the next one looks anew.",
    "ALARM_WORD": "The EMS does not take the site's alarm word; outcomes are not affected. Check the rights on its address; it is tried again by itself and at each reconnect.",
    "MOVED": "Another asset stands at this place now; nothing was written there. Ask for the registration again at its new place.",
}


class AlarmBit(enum.IntFlag):
    """The bits of a site's alarm word, fixed for ever (docs/alarms.md). A bit is set while such an alarm of the site stands, acknowledged or not."""

    STUCK = 1 << 0
    IN_DOUBT = 1 << 1
    OVERDUE = 1 << 2
    UNRESOLVED = 1 << 3
    SET_ASIDE = 1 << 4
    DRIFT = 1 << 5
    DUPLICATE = 1 << 6
    MOVED = 1 << 7
    CONFLICT = 1 << 8
    PLATFORM = 1 << 9
    HELD = 1 << 10
    STOPPED = 1 << 11
    LINK = 1 << 12
    JOURNAL_FULL = 1 << 13
    OTHER = 1 << 15

    @property
    def word(self) -> str:
        """One bit as text, for protocols that carry words."""
        return (self.name or "").lower()


# A code that is not here sets OTHER, so that an EMS hears of alarms that are newer than its own table; None sets nothing.
_BITS: Final[Mapping[str, AlarmBit | None]] = {
    "STUCK": AlarmBit.STUCK,
    "IN_DOUBT": AlarmBit.IN_DOUBT,
    "OVERDUE": AlarmBit.OVERDUE,
    "UNRESOLVED": AlarmBit.UNRESOLVED,
    "SET_ASIDE": AlarmBit.SET_ASIDE,
    "DRIFT": AlarmBit.DRIFT,
    "DUPLICATE_KEY": AlarmBit.DUPLICATE,
    "MOVED": AlarmBit.MOVED,
    "CONFLICT": AlarmBit.CONFLICT,
    "STATUS_WORD": AlarmBit.PLATFORM,
    "QUARANTINE": AlarmBit.PLATFORM,
    "MISDIRECTED": AlarmBit.PLATFORM,
    "CERTIFICATE_REFUSED": AlarmBit.PLATFORM,
    "KEY_REFUSED": AlarmBit.PLATFORM,
    "HOLD": AlarmBit.HELD,
    "CIRCUIT_OPEN": AlarmBit.STOPPED,
    "ACCOUNT_STOPPED": AlarmBit.STOPPED,
    "LINK_DOWN": AlarmBit.LINK,
    "LINK_REFUSED": AlarmBit.LINK,
    "JOURNAL_FULL": AlarmBit.JOURNAL_FULL,
    "ALARM_WORD": None,
    "ANCHOR_PLACE": None,  # no matter of an EMS
    "EXPIRES_30": None,  # a matter of days, for people
    "EXPIRES_60": None,
    "CLOCK_UNSYNCHRONISED": None,  # nothing of an EMS waits for it
}

# An alarm of a submission names no site: it is that of its submission.
_SITE: Final = "CASE WHEN a.site <> '' THEN a.site ELSE coalesce(s.site, '') END"
_ENVIRONMENT: Final = (
    "CASE WHEN a.code = 'HOLD' AND substr(a.subject, 1, 12) = 'environment:' THEN substr(a.subject, 13) ELSE '' END"
)
_FROM: Final = "FROM alarms a LEFT JOIN submissions s ON a.site = '' AND a.subject <> '' AND s.id = a.subject"
_VIEW: Final = (
    f"SELECT a.id, a.code, a.participant, {_SITE}, a.subject, a.text, a.count, a.raised_ns, a.last_ns, a.cleared_ns, a.acked_ns,"
    f" a.acked_by, a.note {_FROM}"
)


def alarms(
    rows: Rows, *, open_only: bool, participant: str, site: str, limit: int, of_host: bool = False
) -> list[AlarmView]:
    """See the port."""
    asked = {f"{_SITE} = ?": site, "a.participant = ?": participant}
    conditions = {text: value for text, value in asked.items() if value}
    narrowed = {"a.cleared_ns = 0": open_only, f"a.participant = '' AND {_SITE} = ''": of_host}
    where = " AND ".join([*(text for text, wanted in narrowed.items() if wanted), *conditions]) or "1 = 1"
    order = (
        "+a.id" if open_only else "a.id"
    )  # the few that stand are found by their index, not by their order in years of others
    found = rows.all(f"{_VIEW} WHERE {where} ORDER BY {order} DESC LIMIT ?", (*conditions.values(), limit))
    return [_view(row) for row in found]


def counts(rows: Rows) -> list[AlarmCount]:
    """How many stand, by code, participant, site, environment, and whether somebody acknowledged them."""
    found = rows.all(
        f"SELECT a.code, a.participant, {_SITE}, {_ENVIRONMENT}, CASE WHEN a.acked_ns > 0 THEN 1 ELSE 0 END, count(*) {_FROM}"
        " WHERE a.cleared_ns = 0 GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"
    )
    return [
        AlarmCount(code, participant, site, environment, bool(acked), number)
        for code, participant, site, environment, acked, number in found
    ]


def codes_of(rows: Rows, site: str, participants: Sequence[str]) -> list[str]:
    """The codes of the alarms that stand for a site: its own, those of its participants as a whole and of their environments, and those of the host."""
    whose = dump(list(participants))
    found = rows.all(
        f"SELECT DISTINCT a.code {_FROM} WHERE a.cleared_ns = 0 AND ({_SITE} = ? OR ({_SITE} = '' AND (a.participant = ''"  # noqa: S608
        " OR a.participant IN (SELECT value FROM json_each(?)))))"
        f" AND ({_ENVIRONMENT} = '' OR {_ENVIRONMENT} IN (SELECT environment FROM environments WHERE participant IN (SELECT value FROM json_each(?))))"
        " ORDER BY a.code",
        (site, whose, whose),
    )
    return [row[0] for row in found]


def acknowledge(tx: Tx, alarm: int, by: str, note: str, more: Mapping[str, str]) -> AlarmView:
    """Note who knows of an alarm; again by another person or with another note replaces it, and each is an event, which says `more` too."""
    found = tx.one(f"{_VIEW} WHERE a.id = ?", (alarm,))
    if found is None:
        raise NotPossible(f"there is no alarm {alarm}", hint="`smp-bridge alarms list` names those that stand")
    before = _view(found)
    if before.cleared_ns:
        raise NotPossible(
            f"alarm {alarm} ({before.code}) was cleared already", hint="there is nothing left to acknowledge"
        )
    now = tx.now.wall_ns
    tx.run("UPDATE alarms SET acked_ns = ?, acked_by = ?, note = ? WHERE id = ?", (now, by, note, alarm))
    data = {"by": by, "note": note, **more, "code": before.code, "site": before.site, "subject": before.subject}
    tx.event(None, before.participant, "alarm.acknowledged", f"alarm/{alarm}", data)
    after = tx.one(f"{_VIEW} WHERE a.id = ?", (alarm,))
    assert after is not None
    return _view(after)


def bits_of(codes: Iterable[str]) -> AlarmBit:
    """The alarm word of these codes."""
    word = AlarmBit(0)
    for code in codes:
        word |= _BITS.get(code, AlarmBit.OTHER) or AlarmBit(0)
    return word


def _view(row: Row) -> AlarmView:
    return AlarmView(
        id=row[0],
        code=row[1],
        participant=row[2],
        site=row[3],
        subject=row[4],
        text=row[5],
        runbook=RUNBOOK.get(row[1], ""),
        count=row[6],
        raised_ns=row[7],
        last_ns=row[8],
        cleared_ns=row[9],
        acked_ns=row[10],
        acked_by=row[11],
        note=row[12],
    )
