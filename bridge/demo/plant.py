"""What stands at a simulated site: plausible assets that pass local validation, the same ones for the same seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

# The numbers that the simulated EMSs use for technologies (DOMAIN 6, layout 1: an enumeration 0-9). Chargers stand behind MQTT, which carries no number.
TECHNOLOGIES: Final = (
    "BATTERY_STORAGE",
    "SOLAR",
    "WIND_ONSHORE",
    "WIND_OFFSHORE",
    "HYDRO",
    "PUMPED_STORAGE",
    "GAS_RECIPROCATING",
    "CCGT",
    "OCGT",
    "DIESEL",
    "EV_CHARGING",
)
BATTERY: Final = 0
CHARGER: Final = 10
_STORES: Final = frozenset({0, 5})
_IMPORTS: Final = frozenset({0, 5})

_MPAN_WEIGHTS: Final = (3, 5, 7, 13, 17, 19, 23, 29, 31, 37, 41, 43)
# GSP group to distributor id and to postcode areas that lie in it.
_DISTRIBUTORS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "_A": ("10", ("IP", "NR", "CB", "CO")),
    "_B": ("11", ("NG", "DE", "LE")),
    "_C": ("12", ("SE", "SW", "N")),
    "_D": ("13", ("LL", "CH", "L")),
    "_E": ("14", ("B", "WV", "DY")),
    "_F": ("15", ("NE", "SR", "TS")),
    "_G": ("16", ("M", "BL", "PR")),
    "_P": ("17", ("IV", "AB", "PH")),
    "_N": ("18", ("G", "PA", "KA")),
    "_J": ("19", ("TN", "ME", "CT")),
    "_H": ("20", ("SO", "RG", "PO")),
    "_K": ("21", ("CF", "NP", "SA")),
    "_L": ("22", ("EX", "PL", "TR")),
    "_M": ("23", ("LS", "HU", "YO")),
}
_PLACES: Final = ("North", "South", "East", "West", "Mill", "Quay", "Abbey", "Station", "Church", "Bridge")
_GROUNDS: Final = ("Yard", "Park", "Farm", "Field", "Works", "Wharf")
_KINDS: Final = ("Battery", "Solar", "Wind", "Offshore", "Hydro", "Pumped", "Gas", "CCGT", "OCGT", "Diesel", "Charger")
_VOLTAGES_KV: Final = (11.0, 33.0, 66.0, 132.0)
_INWARD: Final = "ABDEFGHJLNPQRSTUWXYZ"
_FIRST_DAY: Final = datetime(2015, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantAsset:
    """One asset as its owner knows it. `technology` is an index into `TECHNOLOGIES`; text is ASCII, the name has at most 32 characters."""

    reference: str
    name: str
    import_mpan: str
    export_mpan: str
    postcode: str
    gsp_group: str
    voltage_kv: float
    max_export_kw: int
    max_import_kw: int
    storage_kwh: int
    technology: int
    commissioned: datetime


def plant(
    site: str,
    count: int,
    seed: int,
    *,
    gsp_group: str,
    technology: int | Sequence[int] = BATTERY,
    prefix: str = "BESS",
) -> list[PlantAsset]:
    """`count` assets of one GSP group; their references are `prefix` and a number, as wide as `count` needs but at least two digits.

    `technology` is one index into `TECHNOLOGIES`, or several to be drawn from.
    """
    random = Random(f"{site}/{seed}")
    choices = (technology,) if isinstance(technology, int) else tuple(technology)
    cores = random.sample(range(10**10), 2 * count)
    width = max(2, len(str(count)))
    return [
        _asset(
            random,
            number=number,
            reference=f"{prefix}{number:0{width}d}",
            technology=random.choice(choices),
            gsp_group=gsp_group,
            cores=(cores[2 * number - 2], cores[2 * number - 1]),
        )
        for number in range(1, count + 1)
    ]


def _asset(
    random: Random, *, number: int, reference: str, technology: int, gsp_group: str, cores: tuple[int, int]
) -> PlantAsset:
    distributor, areas = _DISTRIBUTORS[gsp_group]
    power_kw = random.randrange(10, 1000) * 100
    return PlantAsset(
        reference=reference,
        name=f"{random.choice(_PLACES)} {random.choice(_GROUNDS)} {_KINDS[technology]} {number:03d}",
        import_mpan=mpan(distributor, cores[0]),
        export_mpan=mpan(distributor, cores[1]),
        postcode=_postcode(random, areas),
        gsp_group=gsp_group,
        voltage_kv=random.choice(_VOLTAGES_KV),
        max_export_kw=power_kw,
        max_import_kw=power_kw if technology in _IMPORTS else random.randrange(1, 50) * 10,
        storage_kwh=power_kw * random.choice((1, 2, 4)) if technology in _STORES else 0,
        technology=technology,
        commissioned=_FIRST_DAY + timedelta(days=random.randrange(3650)),
    )


def mpan(distributor: str, core: int) -> str:
    """A 13-digit MPAN core of this distributor with its check digit (DOMAIN 2)."""
    body = f"{distributor}{core:010d}"
    total = sum(int(digit) * weight for digit, weight in zip(body, _MPAN_WEIGHTS, strict=True))
    return f"{body}{total % 11 % 10}"


def _postcode(random: Random, areas: Sequence[str]) -> str:
    inward = f"{random.randrange(1, 10)}{random.choice(_INWARD)}{random.choice(_INWARD)}"
    return f"{random.choice(areas)}{random.randrange(1, 10)} {inward}"
