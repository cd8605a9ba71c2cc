"""An account whose password changes, or which SMP locks: three tries, an alarm, and on without a restart once it is right."""

import asyncio
from pathlib import Path

from private_files import write_private_file
from service import PARTICIPANT, fill, linked, made_alarm, service, until_words

from bridge.cli import hold as command
from bridge.market import token


def logins(made):
    return sum(entry.operation == "authenticate" for entry in made.ledger.requests)


def locked(made, password):
    """SMP takes this password from now on, and no token that it gave."""
    account = made.sandbox.accounts
    (entry,) = account._by_user.values()
    object.__setattr__(entry, "password", password)
    account.expire()


async def free(made, within_s=10):
    """Wait until nothing says that the account is stopped."""
    async with asyncio.timeout(within_s):
        while "ACCOUNT_STOPPED" in [alarm.code for alarm in await made.read(lambda journal: journal.alarms())]:
            await asyncio.sleep(0.02)


async def test_a_changed_password_is_taken_from_its_file(tmp_path, monkeypatch):
    """Three refusals and no more; with the new password in the file the calls that waited leave by themselves, and the alarm ends."""
    monkeypatch.setattr(token, "DELAYS_S", (0.05, 0.05, 0.05, 0.2))
    async with service(tmp_path) as made:
        ems = await linked(made)
        locked(made, "another")
        before = logins(made)
        (place,) = fill(ems, 1)
        ems.request("assets", place)
        await made_alarm(made, "ACCOUNT_STOPPED")
        await asyncio.sleep(0.5)  # more than two looks at the file
        assert logins(made) == before + 3
        write_private_file(tmp_path / "keys/password", "another\n")
        await until_words(ems, [place], {3: 1})
        await free(made)
        assert logins(made) == before + 4


async def test_a_locked_account_goes_on_when_it_is_released(tmp_path, monkeypatch, capsys):
    """The password was right all the time: SMP unlocks it, a person says so by name, and no restart is needed. The alarm of a former run ends too."""
    monkeypatch.setattr(token, "DELAYS_S", (0.05, 0.05, 0.05, 30.0))
    async with service(tmp_path) as made:
        ems = await linked(made)
        locked(made, "nobody's")
        (place,) = fill(ems, 1)
        ems.request("assets", place)
        await made_alarm(made, "ACCOUNT_STOPPED")
        locked(made, "s3cret-of-the-test")
        monkeypatch.setattr(command, "loaded", lambda _: made.config())
        await asyncio.to_thread(
            command.release, account=PARTICIPANT, by="Ada", reason="unlocked by SMP", config=Path("config")
        )
        assert capsys.readouterr().out == f"account {PARTICIPANT}: released\n"
        await until_words(ems, [place], {3: 1})
        await free(made)

        await made.stop()
        locked(made, "nobody's")
        await made.start()
        await made_alarm(made, "ACCOUNT_STOPPED")
        await made.stop()
        locked(made, "s3cret-of-the-test")
        await made.start()
        await free(made)
