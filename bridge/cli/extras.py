"""Commands that need more than the service does."""

from importlib.util import find_spec

from bridge.errors import ConfigError, Problem


def needs_extra(extra: str, *modules: str) -> None:
    """Raise `ConfigError` when the packages of an extra are not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise ConfigError(
            [Problem(text=f"this command needs {' and '.join(missing)}, which the service itself does without")],
            hint=f"pip install 'smp-bridge[{extra}]', or from the source: pip install '.[{extra}]'",
        )
