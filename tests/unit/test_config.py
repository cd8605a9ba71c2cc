"""The configuration: what is right is read, what is wrong is said with its place, all at once."""

import shutil
from importlib import import_module
from pathlib import Path

import pytest

from bridge.config import Config, Environment, load
from bridge.config.site import AlarmsConfig
from bridge.config.values import duration_s, size_bytes
from bridge.errors import ConfigError
from bridge.identifiers import Severity
from bridge.model import EmsState, Operation, Trigger
from bridge.secret import Secret
from tests.support.paper import find

CASES = Path(__file__).parent / "config_cases"
GOOD = CASES / "good"


def read(directory: Path, environ: dict[str, str] | None = None, credentials: Path | None = None) -> Config:
    return load(directory, find, environ=environ or {}, credentials_directory=credentials)


def problems_of(directory: Path, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(directory, environ)
    return [str(problem).replace(f"{directory}/", "") for problem in caught.value.problems]


@pytest.fixture
def directory(tmp_path):
    target = tmp_path / "config"
    shutil.copytree(GOOD, target)
    return target


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir() if path != GOOD))
def test_every_problem_is_reported_at_once_with_its_place(case, directory):
    """Each folder of bad files lies over the good one; its expected.txt holds every problem, in order, with file, line and column."""
    shutil.copytree(CASES / case, directory, dirs_exist_ok=True)
    expected = (directory / "expected.txt").read_text().splitlines()
    assert problems_of(directory) == expected


def test_the_good_files_become_values():
    """A whole configuration is read into its values: secrets, paths, durations, the adapter's own models."""
    config = read(GOOD)
    options = config.participants["acme-test"].options
    assert options.environment is Environment.TEST
    assert options.password == Secret("correct-horse")
    assert options.signing_key == (GOOD / "keys/any.pem").absolute()
    assert config.host.listeners.admin.port == 9464
    site = config.sites["north"]
    assert site.adapters["ems"].options.password == Secret("correct-horse")
    assert site.adapters["ems"].options.certificate.samefile(GOOD / "keys/any.pem")
    flow = site.flows["batteries"]
    assert (flow.operation, flow.trigger, flow.participant) == (
        Operation.ASSET_CREATE,
        Trigger.REQUEST,
        "acme-test",
    )
    assert (flow.latency_budget_s, flow.linger_s, flow.deadline_s, flow.registration_wait_s) == (0.25, 0.02, 86400, 5)
    assert flow.key_field == "reference"
    assert flow.states == {EmsState.REGISTERED: 30}
    assert flow.error_codes == {"E1001": 17}
    assert flow.submit.request == "Go"
    assert flow.selection().outcome.transactionId == "txn"


def test_a_literal_secret_is_seen_while_a_variable_hides_it():
    """The file would carry the secret into version control, whether or not it is used here."""
    told = problems_of(CASES / "literal_secrets", {"NOT_SET": "from-the-environment"})
    assert any("signing_password.default" in line for line in told)


def test_the_environment_gives_typed_values():
    """A value from the environment is text, and becomes what the field wants."""
    config = read(GOOD, {"PAPER_PORT": "4841", "PAPER_URL": "paper://there", "PAPER_PASSWORD": "from-env"})
    options = config.sites["north"].adapters["ems"].options
    assert (options.port, options.url, options.password) == (4841, "paper://there", Secret("from-env"))


def test_an_empty_variable_counts_as_not_set():
    """An empty variable leaves the default standing."""
    assert read(GOOD, {"PAPER_PORT": ""}).sites["north"].adapters["ems"].options.port == 4840


def test_a_bad_value_from_the_environment_is_placed_and_not_echoed():
    """A wrong environment value is reported at the reference that read it, without the value."""
    (problem,) = problems_of(GOOD, {"PAPER_PORT": "hunter2"})
    assert problem.startswith("sites/north.yaml:7:11: adapters.ems.port: must be a valid integer")
    assert "hunter2" not in problem


def test_a_credential_of_systemd_is_read(directory, tmp_path):
    """`{credential: NAME}` names a file of the service manager's credentials directory."""
    (tmp_path / "smp").write_text("from-systemd\n")
    edit(directory / "bridge.yaml", "{file: keys/password}", "{credential: smp}")
    config = read(directory, credentials=tmp_path)
    assert config.participants["acme-test"].options.password == Secret("from-systemd")


def test_a_credential_cannot_leave_its_directory(directory, tmp_path):
    """A credential's name is no path."""
    edit(directory / "bridge.yaml", "{file: keys/password}", "{credential: ../smp}")
    with pytest.raises(ConfigError, match="named without a path"):
        read(directory, credentials=tmp_path)


@pytest.mark.parametrize("secret", ["hunter2", "{file: keys/none, extra: hunter2}", "[hunter2]", "{hunter2: 1}", "17"])
def test_a_secret_is_never_echoed(secret, directory):
    """Whatever stands where a secret is wanted never comes back in a problem."""
    edit(directory / "bridge.yaml", "{file: keys/password}", secret)
    (problem,) = problems_of(directory)
    assert problem.startswith("bridge.yaml:10:15: participants.acme-test.password: a secret never stands in this file")
    assert "hunter2" not in problem.replace("keys/none", "")


def test_a_secret_is_not_shown_by_the_values():
    """Printing a configuration shows no secret."""
    assert "correct-horse" not in repr(read(GOOD))


def test_a_flow_may_name_its_own_participant(directory):
    """A flow's participant stands above the site's."""
    text = (directory / "bridge.yaml").read_text()
    entry = text[text.index("  acme-test:") :]
    (directory / "bridge.yaml").write_text(text + entry.replace("acme-test", "acme-live"))
    edit(directory / "sites/north.yaml", "    adapter: ems\n", "    adapter: ems\n    participant: acme-live\n")
    assert read(directory).sites["north"].flows["batteries"].participant == "acme-live"


def test_severities_are_read(directory):
    """`off` is a word in YAML 1.2, not a boolean."""
    edit(directory / "sites/north.yaml", "    linger: 20ms", "    severities: {mpan: off, postcode: warn}")
    flow = read(directory).sites["north"].flows["batteries"]
    assert flow.severities == {"mpan": Severity.OFF, "postcode": Severity.WARN}


def test_yaml_is_read_as_version_1_2(directory):
    """`no` stays a word and `012` is twelve: no value changes silently."""
    edit(directory / "sites/north.yaml", "{const: Control room}", "{const: no}")
    edit(directory / "sites/north.yaml", "registered: 30", "registered: 012")
    flow = read(directory).sites["north"].flows["batteries"]
    assert flow.payload["controlContact.name"].const == "no"
    assert flow.states == {EmsState.REGISTERED: 12}


def test_an_alias_that_leads_to_itself_is_a_problem(directory):
    """A recursive or exploding alias ends in a problem, never in a hang."""
    (directory / "sites/north.yaml").write_text("site: &s [*s, *s]\n")
    assert any("alias" in problem for problem in problems_of(directory))


def test_a_directory_without_files_is_a_problem(tmp_path):
    """An empty or missing directory names the file that is wanted."""
    assert problems_of(tmp_path)[0].endswith("there is no bridge.yaml; name the directory that holds it")


@pytest.mark.parametrize(("host", "clashes"), [("127.0.0.1", True), ("0.0.0.0", True), ("192.0.2.1", False)])  # noqa: S104 - read, not bound
def test_each_listener_has_a_port_of_its_own(directory, host, clashes):
    """Also where one of them listens on all addresses."""
    edit(directory / "bridge.yaml", "returns: {port: 0,", f'returns: {{host: "{host}", port: 9464,')
    if not clashes:
        assert read(directory).host.listeners.returns.port == 9464
        return
    (problem,) = problems_of(directory)
    assert "9464 is the port of `returns` too" in problem


def test_tabs_are_named(directory):
    (directory / "sites" / "north.yaml").write_text("site: north\n\tadapters: {}\n")
    assert any(problem.endswith("YAML is indented by spaces, never by tabs") for problem in problems_of(directory))


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("a:\n    b: 1\n  c: 2\n", "3:3", "begin in the same column"),
        ("a:\n  b: 1\n   c: 2\n", "3:5", "look at the line above too"),
        ("a:\n  b:1\n  c: 2\n", "3:4", "a colon and a blank"),
        ("name: Smith: Co\n", "1:12", "a colon inside text needs quotes"),
        ("a:\n  b: [1, 2\nc: 3\n", "3:2", "what was opened on line 2 is not closed"),
        ("a: {b: 1}}\n", "1:10", "there is no brace to be closed"),
        ("a: 1\nb: 'x\nc: 3\n", "4:1", "the quote of line 2 is not closed"),
        ('path: "C:\\dir"\n', "1:11", "in double quotes a backslash is written twice"),
        ("each: *\n", "1:8", "text that begins with * stands in quotes"),
        ("name: @home\n", "1:7", "text that begins with this sign stands in quotes"),
    ],
)
def test_what_the_parser_says_is_said_so_that_it_helps(directory, text, place, hint):
    """The commonest slips of a file written by hand."""
    (directory / "sites" / "north.yaml").write_text(text)
    (problem,) = problems_of(directory)
    assert problem.startswith(f"sites/north.yaml:{place}: not YAML: ")
    assert hint in problem.partition("; ")[2]


def test_a_file_of_another_encoding_is_told_with_the_place(directory):
    """The line of the first letter that is not UTF-8; a byte order mark and line ends of Windows are no mistake."""
    path = directory / "sites" / "north.yaml"
    good = path.read_text()
    path.write_bytes("site: north\n# Rügen\n".encode("latin-1"))
    assert problems_of(directory) == ["sites/north.yaml:2:4: cannot be read: not UTF-8; save it as UTF-8"]
    path.write_bytes(b"\xef\xbb\xbf" + good.replace("\n", "\r\n").encode())
    assert read(directory).sites["north"].name == "north"


def test_no_class_of_ours_is_named(directory):
    """Where a mapping is wanted."""
    (directory / "sites" / "north.yaml").write_text("- a list\n")
    assert problems_of(directory) == ["sites/north.yaml:1:1: must be a mapping of names to settings"]


def test_pushed_returns_need_a_listener(directory):
    """Where the profile pushes returns, the listener must be configured."""
    edit(
        directory / "bridge.yaml",
        "  returns: {port: 0, certificate: keys/any.pem, private_key: keys/any.pem}\n",
        "  admin: {port: 0}\n",
    )
    (problem,) = problems_of(directory)
    assert problem.startswith("bridge.yaml:3:3: listeners: `returns` is missing")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5),
        ("10min", 600),
        ("24h", 86400),
        ("7d", 604800),
        ("1.5 s", 1.5),
        (0, 0),
        ("20us", 2e-5),
    ],
)
def test_durations(text, seconds):
    """A duration is a number with its unit."""
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", 5, "5 parsecs", "-5s", "", None, True, [1]])
def test_bad_durations(text):
    """A number without a unit is no duration."""
    with pytest.raises(ValueError, match="unit"):
        duration_s(text)


@pytest.mark.parametrize(
    ("text", "found"), [("500MB", 500_000_000), ("2GB", 2 * 10**9), ("1.5 GiB", 3 << 29), ("10kB", 10_000)]
)
def test_sizes_carry_their_unit(text, found):
    """A size is a number and its unit."""
    assert size_bytes(text) == found


@pytest.mark.parametrize("text", ["500", "2 gb", "GB", "", 500, None, "-1MB", "1e3MB"])
def test_a_size_without_a_unit_is_refused(text):
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="size with its unit"):
        size_bytes(text)


def test_the_journal_and_what_belongs_to_it_have_their_places(directory):
    """Anchor and archive have their documented places, the anchor outside of the journal's directory; one inside is refused."""
    journal = read(directory).host.journal
    assert journal.anchor_file == directory / "var.anchor/journal.db.json"
    assert journal.archive_directory == directory / "var/journal.db.archive"
    assert journal.max_size == 2_000_000_000
    edit(
        directory / "bridge.yaml",
        "{path: var/journal.db}",
        "{path: var/journal.db, anchor: var/deep/anchor.json, max_size: 1MB}",
    )
    problems = problems_of(directory)
    assert len(problems) == 1
    assert "max_size: must be at least 10MB" in problems[0]
    assert journal.retention == 2557 * 86_400
    edit(directory / "bridge.yaml", ", max_size: 1MB", ", max_size: 2GB, retention: 7d")
    assert "retention: must be at least 30d" in problems_of(directory)[0]
    edit(directory / "bridge.yaml", ", max_size: 2GB, retention: 7d", ", max_size: null, retention: null")
    (problem,) = problems_of(directory)
    assert "`anchor` must lie outside the journal's own directory" in problem


SERVER = "host: db.example, database: smp, user: smp, password: {file: password.txt}"
BESIDE = "anchor: anchor.json, archive: archive"


def journal_in(directory: Path, options: str) -> None:
    edit(directory / "bridge.yaml", "{path: var/journal.db}", f"{{{options}}}")
    (directory / "password.txt").write_text("pg-secret\n")


def test_the_journal_may_be_a_database(directory):
    """Over the network its certificate is verified; its password is a secret."""
    journal_in(directory, f"postgres: {{{SERVER}}}, {BESIDE}")
    journal = read(directory).host.journal
    assert journal.path is None
    assert (journal.postgres.host, journal.postgres.port, journal.postgres.tls) == ("db.example", 5432, "verify-full")
    assert journal.postgres.password.reveal() == "pg-secret"
    assert "pg-secret" not in repr(journal)
    assert (journal.anchor_file, journal.archive_directory) == (directory / "anchor.json", directory / "archive")


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (
            f"path: var/journal.db, postgres: {{{SERVER}}}, {BESIDE}",
            "journal: `path` (a file of this machine) and `postgres` (a database) exclude",
        ),
        ("max_size: 1GB", "journal: `path` is missing; add it (a file of this machine), or `postgres`"),
        (f"postgres: {{{SERVER}}}", "journal: with `postgres`, `anchor` (a file) and `archive`"),
        (f"postgres: {{{SERVER}, tls: disable}}, {BESIDE}", "journal.postgres: `tls: disable` is for a server on this"),
        (f"postgres: {{{SERVER}, client_key: password.txt}}, {BESIDE}", "`client_certificate` and `client_key` belong"),
        ("postgres: {host: h, database: d, user: u, password: plain}, " + BESIDE, "a secret never stands in this file"),
        (f"postgres: {{{SERVER}, dsn: x}}, {BESIDE}", "journal.postgres.dsn"),
    ],
)
def test_what_is_wrong_with_a_database_is_told_with_its_place(directory, options, wrong):
    """One problem, and nothing of a secret in it."""
    journal_in(directory, options)
    (problem,) = problems_of(directory)
    assert wrong in problem
    assert problem.startswith("bridge.yaml:")
    assert "plain" not in problem


@pytest.mark.parametrize("host", ["/run/postgresql", "127.0.0.1"])
def test_a_database_of_this_machine_needs_no_encryption(directory, host):
    """A UNIX socket or loopback."""
    journal_in(directory, f"postgres: {{host: {host}, database: d, user: u, tls: disable}}, {BESIDE}")
    assert read(directory).host.journal.postgres.password is None


def test_a_database_without_its_package_is_a_problem_of_the_configuration(directory, monkeypatch):
    """It names the extra that brings it."""
    journal_in(directory, f"postgres: {{{SERVER}}}, {BESIDE}")
    monkeypatch.setattr(import_module("bridge.config.load"), "find_spec", lambda name: None)
    (problem,) = problems_of(directory)
    assert "journal.postgres: needs the package psycopg: pip install 'smp-bridge[postgres]'" in problem


def test_alarms_are_optional(directory):
    """Without the section a lost link is an alarm after a minute, and no word is written; with it, as it says."""
    assert read(directory).sites["north"].alarms == AlarmsConfig()
    edit(directory / "sites/north.yaml", "flows:", "alarms: {link_down_after: 5min}\nflows:")
    assert read(directory).sites["north"].alarms == AlarmsConfig(link_down_after_s=300.0)


def test_the_alarm_word_is_read_by_its_adapter(directory):
    """The address is the adapter's own model."""
    edit(directory / "sites/north.yaml", "flows:", "alarms: {adapter: ems, word: {sheet: txn}}\nflows:")
    alarms = read(directory).sites["north"].alarms
    assert (alarms.adapter, alarms.word.sheet, alarms.link_down_after_s) == ("ems", "txn", 60.0)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{adapter: ems}", "alarms: `adapter` and `word` belong together"),
        ("{word: {sheet: txn}}", "alarms: `adapter` and `word` belong together"),
        ("{adapter: emss, word: {sheet: txn}}", "alarms.adapter: unknown adapter of this site; did you mean `ems`?"),
        ("{adapter: ems, word: {sheet: other}}", "alarms.word.sheet: is outside `writable:`"),
        ("{adapter: ems, word: {shet: txn}}", "alarms.word.shet: unknown key; did you mean `sheet`?"),
        ("{link_down_after: 60}", "alarms.link_down_after: must be a duration with its unit"),
        ("{link_down_after: 10ms}", "alarms.link_down_after: must be greater than or equal to 1"),
        ("{adaptor: ems}", "alarms.adaptor: unknown key; did you mean `adapter`?"),
    ],
)
def test_what_is_wrong_with_alarms_is_said(directory, section, said):
    """With its place, at check time."""
    edit(directory / "sites/north.yaml", "flows:", f"alarms: {section}\nflows:")
    assert said in "\n".join(problems_of(directory))


def test_an_adapter_is_looked_up_once(directory):
    """Looking one up reads what every installed package says of itself; many sites of one protocol ask only once."""
    south = (directory / "sites" / "north.yaml").read_text().replace("site: north", "site: south", 1)
    (directory / "sites" / "south.yaml").write_text(south)
    asked = []

    def noting(protocol):
        asked.append(protocol)
        return find(protocol)

    assert sorted(load(directory, noting, environ={}).sites) == ["north", "south"]
    assert asked == ["paper"]


@pytest.mark.parametrize(
    ("admin", "wrong"),
    [
        ("{host: 127.0.0.1, without_token: reading}", ""),
        ("{host: 10.0.0.5, without_token: reading}", "is for a loopback address"),
        ("{host: 10.0.0.5}", "tokens would travel over 10.0.0.5"),
        ("{host: 10.0.0.5, certificate: keys/any.pem, private_key: keys/any.pem}", ""),
        ("{host: 10.0.0.5, certificate: keys/any.pem}", "belong together"),
        ("{without_token: everything}", "without_token"),
    ],
)
def test_the_admin_listener_is_open_to_nobody_by_accident(directory, admin, wrong):
    """Reading without a token is for this machine alone, and no token travels in the clear."""
    listener = "  returns: {port: 0, certificate: keys/any.pem, private_key: keys/any.pem}\n"
    edit(directory / "bridge.yaml", listener, f"{listener}  admin: {admin}\n")
    if not wrong:
        read(directory)
        return
    (problem,) = problems_of(directory)
    assert wrong in problem
