"""A secret that cannot be printed by accident."""


class Secret:
    """Text that shows as `[secret]` everywhere; `reveal()` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    @property
    def at_hand(self) -> bool:
        """Whether `reveal()` has it."""
        return True

    def reveal(self) -> str:
        """The secret itself; call it only where it leaves for its purpose."""
        return self._text

    def __repr__(self) -> str:
        return "[secret]"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a secret is never pickled or copied into a message")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(("secret", self._text))
