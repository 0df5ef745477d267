"""The one error of this package."""

from __future__ import annotations

from ephemeral.errors import EphemeralError


class CertsError(EphemeralError):
    """A certificate, token or invitation that is missing, damaged or not meant like this. ``hint`` is what to type."""
