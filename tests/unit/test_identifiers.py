"""Identifiers: every vector and rule of DOMAIN 2."""

from datetime import UTC, date, datetime

import pytest

from bridge import identifiers as ids


@pytest.mark.parametrize(
    "text",
    [
        "1012345678903", "1210000000018", "1410000000026", "1710000000039", "2010000000049", "2210000000057",
        "1310000000040", "10 1234 5678 903", "2000000000015", "1234567890126",
    ],
)  # fmt: skip
def test_good_mpans(text):
    """The vectors of DOMAIN 2 (one has remainder 10, digit 0) and of P35; spaces do not count."""
    assert ids.mpan(text) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("1012345678904", "check digit"),
        ("1315001165123", "check digit"),
        ("101234567890", "13 digits"),
        ("10123456789031", "13 digits"),
        ("", "13 digits"),
        ("101234567890A", "13 digits"),
        ("1012345678\u0669\u0660\u0663", "13 digits"),
        ("1012345678903\n", "13 digits"),
        ("-012345678903", "13 digits"),
    ],
)
def test_bad_mpans(text, word):
    """A wrong check digit (the public DIP sample too), a wrong length, other digits."""
    assert word in ids.mpan(text)


def test_every_single_wrong_digit_of_an_mpan_is_found():
    """No digit of an MPAN may be mistyped alone without the check digit telling, but where 10 and 0 share a digit."""
    good = "1012345678903"
    missed = [
        (place, digit)
        for place in range(13)
        for digit in "0123456789"
        if digit != good[place] and ids.mpan(good[:place] + digit + good[place + 1 :]) is None
    ]
    assert not missed


def test_distributors_and_their_groups():
    """10 to 23 tell their GSP group, 24 and up tell nothing."""
    found = {number: ids.group_of_mpan(f"{number}12345678903") for number in range(10, 24)}
    assert "".join(found[number][1] for number in sorted(found)) == "ABCDEFGPNJHKLM"
    assert [ids.group_of_mpan(f"{number}00000000000") for number in (24, 25, 30, 9)] == [None] * 4


def test_gsp_groups():
    """14 groups: no I, no O, nothing beyond P, case counts."""
    assert [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if ids.gsp_group(f"_{letter}") is None] == list("ABCDEFGHJKLMNP")  # fmt: skip
    assert all(ids.gsp_group(text) for text in ("A", "_a", "_AA", " _A", "_A\n", ""))


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (ids.gsp, ["COWL", "COWL_1", "COWL1", "COWL-1", "AB12_34"], ["cowl", "COW", "COWL_123", "COWL_", "", "COWL\n"]),
        (
            ids.bm_unit,
            ["T_HUMR-1", "E_RHEI-1", "V__JZENO001", "V__HZENO004", "V__MCEND001", "2__ABCDE001", "C__PABCD123", "I_X", "M_123456789"],
            ["X_HUMR-1", "T_", "T_HUMR_1", "T_1234567890", "V__IZENO001", "V__OZENO001", "V_JZENO001", "V__JZENO01", "t_HUMR-1", "T_HUMR-1 ", ""],
        ),
        (ids.unit_id, ["AG-GEDF02", "ABERU-1", "ABC-1-Z7", "a1", "A" * 30], ["A", "-AB", "_AB", "A" * 31, "A B", "A/B", "", "AB\n"]),
        (ids.eic, ["10YGB----------A", "10YDE-EON------1"], ["10YGB----------B", "11TQUX---------", "11TQUX---------0", "11TQUX----------", "10yGB----------A", "10BGB----------A", "10YGB---------A", ""]),
        (
            ids.postcode,
            ["IP1 2AB", "ip1 2ab", "IP12AB", " ip1  2ab ", "SW1A 1AA", "W1A 0AX", "M1 1AE", "B33 8TH", "CR2 6XH", "DN55 1PT", "EC1A 1BB"],
            ["IP1", "IP1 2A", "IP1 2CB", "QP1 2AB", "IP1 2AB2", "1P1 2AB", "", "IP1-2AB", "IP1 2A\u00c1"],
        ),
        (ids.company_number, ["01234567", "SC123456", "NI123456", "OC123456"], ["1234567", "123456789", "sc123456", "S1234567", ""]),
        (ids.lei, ["5493001KJTIIGC8Y1R12", "213800WSGIIZCXF1P572"], ["5493001KJTIIGC8Y1R13", "5493001KJTIIGC8Y1R1", "5493001kjtiigc8y1r12", ""]),
        (ids.phone, ["+44 20 7946 0000", "020 7946 0000"], ["=1+1", "+", "12", "phone", "1" * 40]),
        (ids.email, ["a@b.example", "first.last+tag@x-y.co.uk"], ["a@b", "@b.example", "a b@c.example", "a@b.example\n", "=a@b.example", "a@@b.example", "x" * 250 + "@b.example"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_rules(rule, good, bad):
    """What is one, and what is not."""
    assert [text for text in good if rule(text) is not None] == []
    assert [text for text in bad if rule(text) is None] == []


@pytest.mark.parametrize(
    "text", ["North Yard Battery 001", "Café", "10% off: a;b", "a=b", "x - y", "東京", "ftp stands", ""]
)
def test_texts_that_every_system_can_take(text):
    """Printable, Unicode NFC, no formula, no link."""
    assert ids.text(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "+1", "-1", "@x", "a\nb", "a\rb", "a\tb", "a\x00b", "a\x1b[31m", "a\x7fb", "a\u0085b", "a\u2028b", "a\u2029b",
        "a\u202eb", "a\u200bb", "\ufeffa", "see http://x", "see HTTPS://x", "Cafe\u0301", "\ud800",
    ],
)  # fmt: skip
def test_texts_that_are_refused(text):
    """DOMAIN 2, "Text hygiene": control characters, line breaks, formula starts, links, what is not NFC."""
    assert ids.text(text) is not None


def test_one_spelling():
    """What several spellings allow is sent in one."""
    assert ids.canonical("mpan", "10 1234 5678 903") == "1012345678903"
    assert ids.canonical("postcode", " ip12ab ") == "IP1 2AB"
    assert ids.canonical("text", " a ") == " a "


@pytest.mark.parametrize(
    ("day", "count"),
    [(date(2027, 3, 28), 46), (date(2026, 10, 25), 50), (date(2027, 10, 31), 50), (date(2026, 11, 23), 48), (date(2026, 7, 1), 48)],
)  # fmt: skip
def test_settlement_periods_of_a_day(day, count):
    """48; 46 and 50 when the clocks change."""
    assert ids.settlement_periods(day) == count


@pytest.mark.parametrize(
    ("text", "period", "day"),
    [
        ("2027-10-31T00:00+00:00", 3, "2027-10-31"),
        ("2027-10-31T01:00+00:00", 5, "2027-10-31"),
        ("2027-03-28T01:00+00:00", 3, "2027-03-28"),
        ("2026-07-01T23:00+00:00", 1, "2026-07-02"),
        ("2026-11-23T00:00+00:00", 1, "2026-11-23"),
        ("2026-11-23T23:59+00:00", 48, "2026-11-23"),
        ("2027-10-31T23:59+00:00", 50, "2027-10-31"),
        ("2026-11-23T01:00+01:00", 1, "2026-11-23"),
    ],
)
def test_settlement_period_of_a_moment(text, period, day):
    """Period 1 begins at 00:00 local; the vectors of DOMAIN 2."""
    assert ids.settlement_period(datetime.fromisoformat(text)) == (date.fromisoformat(day), period)


def test_a_settlement_period_needs_a_zone():
    """A time without one is refused, never guessed."""
    with pytest.raises(ValueError, match="zone"):
        ids.settlement_period(datetime(2026, 11, 23))
    assert ids.settlement_period(datetime(2026, 11, 23, tzinfo=UTC))[1] == 1


def test_every_rule_has_its_name():
    """A vocabulary or a site finds each rule by its name."""
    assert set(ids.RULES) == {
        "mpan", "gsp_group", "gsp", "bm_unit", "unit_id", "eic", "postcode", "company_number", "lei", "text", "phone", "email",
    }  # fmt: skip
