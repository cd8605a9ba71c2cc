"""What a request of MQTT 5 says about its answer outlives the process that acknowledged it."""

from replying import ANSWERS, answers, ask, correlation, crawley, until_answered


async def test_results_after_a_kill_and_a_stop_go_where_their_requests_asked(tmp_path):
    """One request is acknowledged before the host is killed, one before it is stopped; both returns come to the process after them."""
    async with crawley(tmp_path) as made:
        await made.mqtt.subscribe(ANSWERS.format("+"))
        for place, end in (("EV1", "kill"), ("EV2", "stop")):
            process = await made.run()
            await process.until("link_open")
            await ask(made, place)
            await until_answered(made, place, "sent")
            await (process.kill() if end == "kill" else process.stop())
        process = await made.run()
        await process.until("link_open")
        await made.sandbox.release()
        for place in ("EV1", "EV2"):
            await until_answered(made, place, "registered")
            assert {data for _, data in answers(made, place)} == {correlation(place)}
        assert [made.sandbox.ledger.creates(place) for place in ("EV1", "EV2")] == [1, 1]
