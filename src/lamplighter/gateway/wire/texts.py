"""What Neon's proxy tells the clients that it refuses, so that programs which know those sentences know ours.

Neon gives all of them SQLSTATE XX000 and severity ERROR (Postgres: FATAL). So do we for the code, since programs read
it; exceptions are a wrong password (28P01) and too many connections (53300), by which programs know what to do.
Sources: neondatabase/neon, proxy/src/auth and proxy/src/control_plane, and the errors that users of Neon report.
"""

from __future__ import annotations

INTERNAL_ERROR = "XX000"

NO_ENDPOINT = (
    "Endpoint ID is not specified. Either please upgrade the postgres client library (libpq) for SNI support or pass "
    "the endpoint ID (first part of the domain name) as a parameter: '?options=endpoint%3D<endpoint-id>'. "
    "See more at https://neon.tech/sni"
)
NO_ENDPOINT_CODE = INTERNAL_ERROR

ENDPOINT_NOT_FOUND = (
    "The requested endpoint could not be found, or you don't have access to it. "
    "Please check the provided ID and try again."
)
ENDPOINT_NOT_FOUND_CODE = INTERNAL_ERROR

DISABLED = "The endpoint has been disabled. Enable it using Neon API and retry."
DISABLED_CODE = INTERNAL_ERROR

IP_NOT_ALLOWED_CODE = INTERNAL_ERROR

#: To a client of another host without TLS.
INSECURE = "connection is insecure (try using `sslmode=require`)"
INSECURE_CODE = INTERNAL_ERROR

TOO_MANY_CONNECTIONS = "Too many connections to this endpoint. Please try again later."
#: Postgres's own code, by which poolers know to wait; Neon says XX000.
TOO_MANY_CONNECTIONS_CODE = "53300"


def ip_not_allowed(address: str) -> str:
    return (
        f"This IP address {address} is not allowed to connect to this endpoint. "
        "Please add it to the allowed list in the Neon console. Make sure to check for IPv4 or IPv6 addresses."
    )
