"""The routes of the admin listener, and who may take which."""

from bridge.web.roles import Role

V, O, A, K, U = Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.CUSTODIAN, Role.AUDITOR
EVERYBODY = set(Role)
STRANGER = "a stranger too"
# Every route, and who may take it. A route that is not here fails the test.
MATRIX = {
    ("GET", "/metrics"): EVERYBODY,
    ("GET", "/health/live"): EVERYBODY,
    ("GET", "/health/ready"): EVERYBODY,
    ("GET", "/api/v1/latency"): EVERYBODY,
    ("GET", "/api/v1/connections"): EVERYBODY,
    ("GET", "/api/v1/whoami"): EVERYBODY,
    ("GET", "/api/v1/submissions"): EVERYBODY,
    ("GET", "/api/v1/submissions/{id}"): EVERYBODY,
    ("POST", "/api/v1/submissions/{id}/resend"): {O},
    ("POST", "/api/v1/submissions/{id}/confirm"): {O},
    ("POST", "/api/v1/submissions/{id}/cancel"): {O},
    ("POST", "/api/v1/submissions/{id}/retry"): {O},
    ("GET", "/api/v1/alarms"): EVERYBODY,
    ("POST", "/api/v1/alarms/{id}/ack"): {O},
    ("GET", "/api/v1/holds"): EVERYBODY,
    ("POST", "/api/v1/holds"): {O},
    ("POST", "/api/v1/holds/release"): {O},
    ("GET", "/api/v1/approvals"): EVERYBODY,
    ("POST", "/api/v1/approvals/{id}/approve"): {A},
    ("POST", "/api/v1/approvals/{id}/refuse"): {A, O, K},
    ("GET", "/api/v1/participants/{id}/keys"): EVERYBODY,
    ("POST", "/api/v1/participants/{id}/keys/rotate"): {K},
    ("POST", "/api/v1/participants/{id}/keys/revoke"): {K},
    ("POST", "/api/v1/participants/{id}/profile/accept"): {O},
    ("GET", "/api/v1/tokens"): {U, K},
    ("GET", "/"): EVERYBODY,
    ("GET", "/connections"): EVERYBODY,
    ("GET", "/submissions"): EVERYBODY,
    ("GET", "/submissions/{id}"): EVERYBODY,
    ("POST", "/submissions/{id}/{action}"): {O},
    ("POST", "/alarms/{id}/ack"): {O},
    ("POST", "/approvals/{id}/approve"): {A},
    ("POST", "/approvals/{id}/refuse"): {A, O, K},
    ("GET", "/sign-in"): STRANGER,
    ("POST", "/sign-in"): STRANGER,
    ("POST", "/sign-out"): STRANGER,
}
