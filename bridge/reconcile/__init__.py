"""What makes a journal trustworthy again that is older than what was sent: the EMSs and the platform are asked what they remember."""

from bridge.reconcile.recover import Reconciliation, Report

__all__ = ["Reconciliation", "Report"]
