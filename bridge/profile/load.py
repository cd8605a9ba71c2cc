"""A profile file becomes a `Profile`, or a `ConfigError` with everything that is wrong with it. The only place that reads profile files."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import orjson
from pydantic import ValidationError

from bridge import yaml12
from bridge.errors import ConfigError, Problem
from bridge.model import Kind
from bridge.profile.check import problems_of
from bridge.profile.model import Call, Freshness, Limits, ProfileSpec, TokenRules
from bridge.profile.words import AlignBy, AnswersSigned, AnswerWord, Returns, Semantics, SignatureForm
from bridge.vocabulary import Vocabulary, load_vocabulary

_FOLDER: Final = "profiles"
_SCHEMA_SUFFIX: Final = ".schema.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A checked profile with its schemas. `hash` is the SHA-256 of its whole effective content, schemas and vocabulary included."""

    spec: ProfileSpec
    schemas: Mapping[Kind, Mapping[str, Any]]
    vocabulary: Vocabulary
    hash: str

    @property
    def name(self) -> str:
        """The profile's own name."""
        return self.spec.name

    @property
    def version(self) -> str:
        """The profile's own version."""
        return self.spec.version

    @property
    def calls(self) -> Mapping[str, Call]:
        """The calls by the host's word for the operation (`Operation.value`, `MessageKind.STATUS.value`)."""
        return {name: getattr(self.spec.calls, key) for key, name in CALL_WORDS.items()}

    @property
    def limits(self) -> Limits:
        """How much and how fast."""
        return self.spec.limits

    @property
    def token(self) -> TokenRules:
        """How a token is read, shown and renewed."""
        return self.spec.token

    @property
    def freshness(self) -> Freshness:
        """How old or early a message may be."""
        return self.spec.freshness

    @property
    def signature_form(self) -> SignatureForm:
        """How messages are signed."""
        return self.spec.signature.form

    @property
    def signature_header(self) -> str:
        """The HTTP header of a detached signature."""
        return self.spec.signature.header

    @property
    def signature_headers(self) -> tuple[str, ...]:
        """Every HTTP header that the form of signature takes, that of the signature first."""
        return self.spec.signature.headers

    @property
    def answers_signed(self) -> AnswersSigned:
        """Whether answers must be signed."""
        return self.spec.signature.answers_signed

    @property
    def answer_classes(self) -> Mapping[str, AnswerWord]:
        """What each answer lets us do: by status (`503`), by status and condition (`503+retry-after`), or by hundred (`3xx`)."""
        return self.spec.answer_classes

    @property
    def batch_semantics(self) -> Semantics:
        """What an error list says of the items it does not name."""
        return self.spec.batch_semantics

    @property
    def align_by(self) -> AlignBy:
        """How a unit names its assets."""
        return self.spec.align_by

    @property
    def pushes_returns(self) -> bool:
        """Whether SMP pushes returns to an end point of ours."""
        return self.spec.returns is not Returns.POLL

    @property
    def polls_status(self) -> bool:
        """Whether we ask for the status."""
        return self.spec.returns is not Returns.PUSH

    @property
    def return_path(self) -> str:
        """The path of our end point, with `{participant}` in it."""
        return self.spec.return_path

    @property
    def return_content_types(self) -> tuple[str, ...]:
        """The media types that a return may have."""
        return self.spec.return_content_types

    @property
    def ack_content_type(self) -> str:
        """The media type of our acknowledgement."""
        return self.spec.ack.content_type

    @property
    def keepalive_idle_s(self) -> float:
        """How long an idle connection is kept."""
        return self.spec.transport.idle_s

    @property
    def answer_timeout_s(self) -> float:
        """How long an answer may take."""
        return self.spec.transport.answer_s

    @property
    def quick_polls(self) -> int:
        """How many polls come before the regular ones."""
        return len(self.spec.poll.delays_s)

    def poll_delay_s(self, attempt: int) -> float | None:
        """The wait before poll number `attempt` (from 0); None when the plan is over, or status is never asked for."""
        return self.spec.poll.delay_s(attempt) if self.polls_status else None


AUTHENTICATE: Final = "authenticate"
CALL_WORDS: Final[Mapping[str, str]] = {
    "authenticate": AUTHENTICATE,
    "asset_create": "asset.create",
    "unit_create": "unit.create",
    "status": "transaction.status",
}


def shipped_profiles() -> tuple[str, ...]:
    """The names of the profiles that come with the bridge."""
    folder = files("bridge") / _FOLDER
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_profile(name_or_path: str | Path, vocabulary: Vocabulary | None = None) -> Profile:
    """Load a shipped profile by its name, or a profile file. Raises `ConfigError` with every problem in it."""
    if isinstance(name_or_path, str) and name_or_path in shipped_profiles():
        text = (files("bridge") / _FOLDER / f"{name_or_path}.yaml").read_text(encoding="utf-8")
        return parse_profile(_parse(text, name_or_path), vocabulary, source=name_or_path)
    path = Path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        wrong = f"cannot be read ({error.__class__.__name__}); give a file, or one of {', '.join(shipped_profiles())}"
        raise ConfigError([Problem(text=wrong, file=str(path))]) from None
    return parse_profile(_parse(text, str(path)), vocabulary, source=str(path), folder=path.parent)


@lru_cache(maxsize=8)
def _content(text: str) -> Any:
    """Reading a profile takes a good part of a second, and participants share it. Nobody may change what this returns."""
    return yaml12.load(text)


def _parse(text: str, source: str) -> Any:
    try:
        return deepcopy(_content(text))
    except yaml12.NotYaml as error:
        raise ConfigError([Problem(text=error.text, file=source, line=error.line, column=error.column)]) from None


def parse_profile(
    content: Any, vocabulary: Vocabulary | None = None, *, source: str = "profile", folder: Path | None = None
) -> Profile:
    """A profile from its parsed content; `folder` is where schema files named in it are looked for."""
    vocabulary = vocabulary or load_vocabulary()
    try:
        spec = ProfileSpec.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_shape_problems(error, source)) from None
    problems: list[Problem] = []
    schemas = {
        Kind.ASSET: _schema(spec.schemas.asset, "schemas.asset", folder, source, problems),
        Kind.UNIT: _schema(spec.schemas.unit, "schemas.unit", folder, source, problems),
    }
    problems += [Problem(text=text, path=path, file=source) for path, text in problems_of(spec, schemas, vocabulary)]
    if problems:
        raise ConfigError(problems)
    return Profile(spec=spec, schemas=schemas, vocabulary=vocabulary, hash=_hash(spec, schemas, vocabulary))


def _shape_problems(error: ValidationError, source: str) -> list[Problem]:
    return [
        Problem(
            text=found["msg"].removeprefix("Value error, "),
            path=".".join(str(part) for part in found["loc"]),
            file=source,
        )
        for found in error.errors(include_input=False, include_url=False, include_context=False)
    ]


def _schema(name: str, path: str, folder: Path | None, source: str, problems: list[Problem]) -> Mapping[str, Any]:
    """A schema by its shipped name or its file; a problem and an empty schema when there is none."""
    try:
        if "/" in name or name.endswith(".json"):
            text = ((folder or Path()) / name).read_bytes()
        else:
            text = (files("bridge") / _FOLDER / "schemas" / f"{name}{_SCHEMA_SUFFIX}").read_bytes()
        schema = orjson.loads(text)
        jsonschema_rs.meta.validate(schema)
    except OSError:
        problems.append(Problem(text=f"the schema {name} cannot be read", path=path, file=source))
    except (ValueError, jsonschema_rs.ValidationError) as error:
        wrong = str(error).splitlines()[0]
        problems.append(Problem(text=f"{name} is not a JSON Schema: {wrong}", path=path, file=source))
    else:
        if isinstance(schema, dict):
            return schema
        problems.append(Problem(text=f"{name} must be an object", path=path, file=source))
    return {}


def _hash(spec: ProfileSpec, schemas: Mapping[Kind, Mapping[str, Any]], vocabulary: Vocabulary) -> str:
    content = {
        "profile": spec.model_dump(mode="json", by_alias=True),
        "schemas": {kind.value: schema for kind, schema in schemas.items()},
        "vocabulary": vocabulary.document.model_dump(mode="json", by_alias=True),
    }
    return sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)).hexdigest()
