"""`{file: …}`, `{env: …}`, `{credential: …}` and relative paths, resolved before validation by what the model wants at that place."""

import dataclasses
import os
import stat
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.types import PathType

from bridge.api import Private
from bridge.config.tree import Loc, Tree
from bridge.errors import ConfigError, Problem
from bridge.secret import Secret

MISSED: Final = "this command uses it; docs/systemd.md says how a command has the secrets of a service"
SECRET_WANTED: Final = "a secret never stands in this file; write {file: PATH}, {env: NAME} or {credential: NAME}"  # noqa: S105 - a message
_MAX_SECRET_BYTES: Final = 64 * 1024
_NOT_THE_OWNERS: Final = 0o077


class Untouched:
    """Marks a part that another model reads later: references inside it stay as they are."""


class Existing:
    """Marks a file that has to be there. Looked at here alone and not by the model, so that it can be read where the file is not."""


ExistingFile = Annotated[Path, Existing]
OwnFile = Annotated[Path, Existing, Private]
"""A file of the host's own configuration that has to be there; with a private key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What references may point at.

    `exposed` collects the files of keys and secrets that others than their owner can read or change: no hindrance to a command that looks, but to a start.
    With `withheld`, neither is a secret that cannot be had here, such as a credential of systemd beside the service: it is missed by whoever uses it;
    nor a file marked `Existing` that is not there.
    """

    environ: Mapping[str, str]
    credentials: Path | None = None
    withheld: bool = False
    exposed: list[Problem] = dataclasses.field(default_factory=list)


@dataclass(slots=True)
class Resolver:
    """Resolves the references of one file. Problems are collected; a value that could not be resolved becomes `Unresolved`."""

    tree: Tree
    outside: Outside
    problems: list[Problem]

    def resolve(self, value: object, loc: Loc, wanted: "Wanted") -> object:
        """The value with its references resolved, as the annotations in `wanted` ask for."""
        if wanted.has(Untouched):
            return value
        if isinstance(value, Mapping):
            return self._mapping(value, loc, wanted)
        if isinstance(value, list):
            return [self.resolve(item, (*loc, index), wanted.item()) for index, item in enumerate(value)]
        if wanted.secret:
            return self._wrong(loc, SECRET_WANTED, wanted) if value is not None else None
        if wanted.path and isinstance(value, str):
            return self._path(value, loc, wanted)
        return value

    def _mapping(self, value: Mapping[Any, object], loc: Loc, wanted: "Wanted") -> object:
        if isinstance(value.get("env"), str) and value.keys() <= {"env", "default"}:
            return self._env(value, loc, wanted)
        if wanted.secret and len(value) == 1:
            kind, target = next(iter(value.items()))
            if kind == "file" and isinstance(target, str):
                path = Path(os.path.normpath(self.tree.directory / target))
                self._guard(path, (*loc, "file"), "secret")
                return self._file(path, (*loc, "file"))
            if kind == "credential" and isinstance(target, str):
                return self._credential(target, (*loc, "credential"))
        if wanted.secret and not wanted.models:
            return self._wrong(loc, SECRET_WANTED, wanted)
        return {key: self.resolve(item, (*loc, _part(key)), wanted.member(key)) for key, item in value.items()}

    def _env(self, value: Mapping[Any, object], loc: Loc, wanted: "Wanted") -> object:
        name = str(value["env"])
        if wanted.secret and isinstance(value.get("default"), str | int | float):
            return self._wrong((*loc, "default"), SECRET_WANTED, wanted)  # seen even while the variable hides it
        text = self.outside.environ.get(name)
        if text:  # an empty variable counts as not set
            return self._from_env(text, loc, wanted)
        if "default" in value:
            return self.resolve(value["default"], (*loc, "default"), wanted)
        text = f"the environment variable {name} is not set; set it"
        if wanted.secret:
            return self._missing((*loc, "env"), text)
        return self._wrong((*loc, "env"), f"{text}, or add `default:`", wanted)

    def _from_env(self, text: str, loc: Loc, wanted: "Wanted") -> object:
        if wanted.secret:
            return Secret(text)
        if wanted.path:
            return self._path(text, loc, wanted)
        return text

    def _file(self, path: Path, loc: Loc) -> object:
        try:
            with path.open("rb") as stream:
                data = stream.read(_MAX_SECRET_BYTES + 1)
        except OSError as error:
            return self._missing(loc, f"the file {path} cannot be read: {error.strerror}")
        if len(data) > _MAX_SECRET_BYTES:
            return self._missing(loc, f"the file {path} is larger than a secret can be")
        try:
            text = data.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            return self._missing(loc, f"the file {path} is not UTF-8 text")
        return FileSecret(text, path) if text else self._missing(loc, f"the file {path} is empty")

    def _credential(self, name: str, loc: Loc) -> object:
        if self.outside.credentials is None:
            return self._missing(
                loc, "there is no credentials directory; start the service by systemd with LoadCredential="
            )
        if "/" in name or name in {"", ".", ".."}:
            return self._wrong(loc, "a credential is named without a path")
        return self._file(self.outside.credentials / name, loc)

    def _path(self, text: str, loc: Loc, wanted: "Wanted") -> object:
        """A path relative to the YAML file; pydantic's `FilePath` and `DirectoryPath` must exist, a plain `Path` need not."""
        path = Path(os.path.normpath((self.tree.directory / Path(text).expanduser()).absolute()))
        try:
            if self.outside.withheld and wanted.has(Existing):
                return path
            if wanted.path_type == "file" and not path.is_file():
                return self._wrong(loc, f"the file {path} does not exist; make it, or name another", wanted)
            if wanted.path_type == "dir" and not path.is_dir():
                return self._wrong(loc, f"the directory {path} does not exist; make it, or name another", wanted)
        except OSError as error:  # a directory on the way is not ours to look into, or the name is none
            return self._wrong(loc, f"the path {path} cannot be looked at: {error.strerror}", wanted)
        if wanted.has(Private):
            self._guard(path, loc, "private key")
        return path

    def _guard(self, path: Path, loc: Loc, what: str) -> None:
        """Note a file that is not its owner's alone. What systemd put into the credentials directory is guarded by systemd."""
        text = open_to_others(path, what, self.outside.credentials)
        if text:
            self.outside.exposed.append(self.tree.problem(loc, text))

    def _missing(self, loc: Loc, text: str) -> object:
        """A secret that cannot be had here."""
        if self.outside.withheld:
            return Withheld(self.tree.problem(loc, text))
        return self._wrong(loc, text)

    def _wrong(self, loc: Loc, text: str, wanted: "Wanted | None" = None) -> object:
        self.problems.append(self.tree.problem(loc, text))
        if wanted is None or wanted.secret:  # without `wanted`: the file or credential of a secret
            return Unresolved(Secret("unresolved"))
        if wanted.path:
            return Unresolved(self.tree.directory if wanted.path_type == "dir" else Path(self.tree.file).absolute())
        return Unresolved(None)


class FileSecret(Secret):
    """A secret that a file holds, and may hold another one later (a password that was changed)."""

    __slots__ = ("_path",)

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self._path = path

    def now(self) -> Secret:
        """What the file holds now; as it was where it cannot be read."""
        try:
            with self._path.open("rb") as stream:
                text = stream.read(_MAX_SECRET_BYTES).decode("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            return self
        return Secret(text) if text else self


class Withheld(Secret):
    """A secret that could not be had when the configuration was read: no hindrance until somebody uses it."""

    __slots__ = ("_problem",)

    def __init__(self, problem: Problem) -> None:
        super().__init__("")
        self._problem = problem

    @property
    def at_hand(self) -> bool:
        """No."""
        return False

    def reveal(self) -> str:
        """Raises `ConfigError` with the place that names it."""
        raise ConfigError([self._problem], hint=MISSED)


def open_to_others(path: Path, what: str, credentials: Path | None) -> str:
    """What is wrong with a key's or secret's file that group or others can read or change; '' for its owner's alone, and below `credentials`."""
    if credentials is not None and path.is_relative_to(credentials.absolute()):
        return ""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ""  # it is said where it is read
    if not mode & _NOT_THE_OWNERS:
        return ""
    return f"the file {path} is open to others (mode {mode:04o}), and a {what} belongs to its owner alone: chmod 600 {path}"


class Unresolved:
    """Stands where a value could not be resolved. With its stand-in the rest of the model can still be looked at; nothing is ever run with it."""

    def __init__(self, stand_in: object) -> None:
        self.stand_in = stand_in

    def __repr__(self) -> str:
        return "unresolved"


def stood_in(value: object) -> object:
    """The value with every unresolved part replaced by its stand-in; those that have none are left out."""
    if isinstance(value, Unresolved):
        return value.stand_in
    if isinstance(value, Mapping):
        replaced = {key: stood_in(item) for key, item in value.items()}
        return {key: item for key, item in replaced.items() if item is not None or value[key] is None}
    if isinstance(value, list):
        return [stood_in(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model accepts at one place: the plain types of its annotation, unions taken apart, and the markers on it."""

    kinds: tuple[Any, ...]
    markers: tuple[Any, ...] = ()

    @classmethod
    def of(cls, annotation: Any, markers: Sequence[Any] = ()) -> "Wanted":
        """Take an annotation apart."""
        kinds: list[Any] = []
        found: list[Any] = list(markers)
        _spread(annotation, kinds, found)
        return cls(tuple(kinds), tuple(found))

    def has(self, marker: type) -> bool:
        """Whether the annotation carries a marker."""
        return any(item is marker or isinstance(item, marker) for item in self.markers)

    @property
    def secret(self) -> bool:
        """Whether a secret is wanted here."""
        return Secret in self.kinds

    @property
    def path(self) -> bool:
        """Whether a file path is wanted here."""
        return any(isinstance(kind, type) and issubclass(kind, Path) for kind in self.kinds)

    @property
    def path_type(self) -> str:
        """Whether the path must be an existing `file` or `dir`; empty where it need not exist."""
        return next(
            (item.path_type for item in self.markers if isinstance(item, PathType)),
            "file" if self.has(Existing) else "",
        )

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """The models that may stand here."""
        return tuple(kind for kind in self.kinds if isinstance(kind, type) and issubclass(kind, BaseModel))

    def names(self) -> list[str]:
        """The keys that the models here know, as they are spelled in YAML."""
        return [field.alias or name for model in self.models for name, field in model.model_fields.items()]

    def member(self, key: object) -> "Wanted":
        """What is wanted under this key of a mapping."""
        kinds: list[Any] = []
        markers: list[Any] = []
        for model in self.models:
            for name, field in model.model_fields.items():
                if key == (field.alias or name):
                    markers.extend(field.metadata)
                    _spread(field.annotation, kinds, markers)
        for kind in self.kinds:
            if _is(kind, Mapping) and len(get_args(kind)) == 2:
                _spread(get_args(kind)[1], kinds, markers)
        return Wanted(tuple(kinds), tuple(markers))

    def item(self) -> "Wanted":
        """What is wanted as an item of a list."""
        kinds: list[Any] = []
        markers: list[Any] = []
        for kind in self.kinds:
            if _is(kind, Collection) and not _is(kind, Mapping):
                for inner in get_args(kind):
                    _spread(inner, kinds, markers)
        return Wanted(tuple(kinds), tuple(markers))


def _spread(annotation: Any, kinds: list[Any], markers: list[Any]) -> None:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        markers.extend(extra)
        _spread(inner, kinds, markers)
    elif origin in {Union, types.UnionType}:
        for inner in get_args(annotation):
            _spread(inner, kinds, markers)
    elif hasattr(annotation, "__value__"):  # a `type` alias
        _spread(annotation.__value__, kinds, markers)
    else:
        kinds.append(annotation)


def _is(kind: Any, base: type) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, base)


def _part(key: object) -> str | int:
    return key if isinstance(key, int) and not isinstance(key, bool) else str(key)
