"""Submitting on change: every registration once, then when its content moves."""

from mqtt_site import ASSET, changing, nothing, registration, take


async def test_every_registration_comes_once_and_then_when_it_changes(session, ems, version):
    """The same content again is nothing new, nor is a member that no field reads."""
    await ems.publish(ASSET.format("EV001"), registration(1), retain=True)
    await ems.publish(ASSET.format("EV002"), registration(2), retain=True)
    async with session(changing(), version=version) as link:
        arrivals = await take(link, 2)
        assert {arrival.records[0].place for arrival in arrivals} == {"EV001", "EV002"}
        assert all(arrival.records[0].request is None for arrival in arrivals)
        await ems.publish(ASSET.format("EV001"), registration(1), retain=True)
        await ems.publish(ASSET.format("EV001"), registration(1, heartbeat=7), retain=True)
        await ems.publish(ASSET.format("EV001"), registration(1, kw="50"), retain=True)
        (changed,) = await take(link)
        assert changed.records[0].fields["kw"].value == "50"


async def test_a_number_is_not_its_text(session, ems):
    """49 and "49" are different contents, for they map differently."""
    async with session(changing()) as link:
        await ems.publish(ASSET.format("EV001"), registration(kw=49))
        await take(link)
        await ems.publish(ASSET.format("EV001"), registration(kw="49"))
        await take(link)


async def test_a_change_is_acknowledged_after_the_commit(session, ems):
    """Not retained and not acknowledged, it comes again; acknowledged, it does not."""
    async with session(changing()):
        pass
    await ems.publish(ASSET.format("EV001"), registration())
    for _ in range(2):
        async with session(changing()) as link:
            (arrival,) = await take(link)
    async with session(changing()) as link:
        (arrival,) = await take(link)
        arrival.ack(True)
    async with session(changing()) as link:
        await nothing(link)


async def test_an_unreadable_registration_is_refused_once(session, ems):
    """The record carries the problem; the same bytes again are nothing new, a good registration is."""
    async with session(changing()) as link:
        for _ in range(2):
            await ems.publish(ASSET.format("EV001"), b"{")
        (bad,) = await take(link)
        assert bad.records[0].problem.startswith("the registration is not JSON")
        await nothing(link)
        await ems.publish(ASSET.format("EV001"), registration())
        (good,) = await take(link)
        assert not good.records[0].problem


async def test_a_registration_that_went_and_came_is_new_to_us(session, ems):
    """Whether it is new to SMP is the core's decision."""
    async with session(changing()) as link:
        for payload in (registration(), b"", registration()):
            await ems.publish(ASSET.format("EV001"), payload, retain=True)
        await take(link, 2)


async def test_several_placeholders_make_a_place_together(session, ems):
    """Their values in the order of `each`, joined by a slash."""
    flow = changing(
        records={"each": "acme/{site}/{asset}/registration", "key": "id", "fields": {"id": "$asset", "site": "$site"}}
    )
    async with session(flow) as link:
        await ems.publish("acme/south/EV001/registration", registration())
        await ems.publish("acme//EV001/registration", registration())
        (arrival,) = await take(link)
        assert arrival.records[0].place == "south/EV001"
        assert arrival.records[0].fields["site"].value == "south"
        await nothing(link)
