"""What the field side tells for the traces of submissions; the composition root hands in what makes spans of it."""

from collections.abc import Mapping, Sequence

from bridge.flow import FlowPlan
from bridge.journal.port import DueWriteBack, WriteBackResult


class FieldTraces:
    """Traces nothing; a base for what does."""

    def told(
        self, plans: Mapping[str, FlowPlan], rows: Sequence[DueWriteBack], results: Sequence[WriteBackResult]
    ) -> None:
        """These rows were tried together; one result for each, in the same order."""
