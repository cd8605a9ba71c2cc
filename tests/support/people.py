"""People at the admin listener of a whole service, and what an export says."""

import base64
import binascii
import zipfile

from bridge.clock import SystemClock
from bridge.journal.access import TokenView
from bridge.journal.configured import open_configured_journal
from bridge.material import host_signer
from bridge.web.tokens import make_token, new_token_id


async def token(made, role, participant):
    config, now_ns = made.config(), SystemClock.here().wall_ns()
    view = TokenView(
        id=new_token_id(), holder=f"Ann {role.value}", role=role.value, participants=(participant,), issued_by="root",
        issued_ns=now_ns, expires_ns=now_ns + 3600 * 10**9,
    )  # fmt: skip
    return view, make_token(host_signer(config), view).reveal()


async def beside(made, ask):
    """What `ask` makes of the journal beside the running host, as a command does."""
    journal = await open_configured_journal(
        made.config().host.journal, clock=SystemClock.here(), role="cli", new_id=str, checkpoint=False
    )
    try:
        return await ask(journal)
    finally:
        await journal.close()


async def note(made, *views):
    async def ask(journal):
        for view in views:
            await journal.note_token(view)

    await beside(made, ask)


def unpacked(file):
    """Everything in an export as text, base64 undone."""
    parts = []
    with zipfile.ZipFile(file) as source:
        for name in source.namelist():
            text = source.read(name).decode()
            parts.append(text)
            for word in text.replace('"', " ").split():
                if len(word) > 20:
                    try:
                        parts.append(base64.b64decode(word.encode(), altchars=b"-_").decode("utf-8", "replace"))
                    except (binascii.Error, ValueError):
                        continue
    return "\n".join(parts)
