"""The way of one record, end to end."""

import pytest
from service import service

PROFILES = ["default", "odd", "drawn-3"]
every_profile = pytest.mark.parametrize("profile", PROFILES)


@every_profile
async def test_an_asset_is_registered(tmp_path, profile):
    """From request to written-back outcome."""
    async with service(tmp_path, profile=profile) as made:
        ems = made.ems["north"]
        await ems.until(lambda: ems.sessions)
        ems.put("B1", reference="BESS001", kw=5)
        ems.request("assets", "B1")
        await ems.until(lambda: ems.last("B1") == 3)
        await made.until_states("CONFIRMED")
        assert made.ledger.creates("BESS001") == 1
