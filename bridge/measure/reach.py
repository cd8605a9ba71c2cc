"""Whether a peer is reached, since when, and what went wrong last. For one thread."""


class Reach:
    """`up` is None until there was a try; `since_ns` is when that last changed, `tried_ns` when it was last seen, `error_ns` when the last `error` was (UTC ns, 0 = never). An error stays when the peer is back."""

    __slots__ = ("error", "error_ns", "since_ns", "tried_ns", "up")

    def __init__(self) -> None:
        self.up: bool | None = None
        self.since_ns = 0
        self.tried_ns = 0
        self.error = ""
        self.error_ns = 0

    def good(self, wall_ns: int) -> None:
        """It is there."""
        self.tried_ns = wall_ns
        if self.up is not True:
            self.up, self.since_ns = True, wall_ns

    def bad(self, wall_ns: int, error: str) -> None:
        """It is not, and this is why."""
        self.tried_ns = wall_ns
        if self.up is not False:
            self.up, self.since_ns = False, wall_ns
        self.noted(wall_ns, error)

    def noted(self, wall_ns: int, error: str) -> None:
        """Something went wrong, though it is there."""
        self.error, self.error_ns = error, wall_ns
