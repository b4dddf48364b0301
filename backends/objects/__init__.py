"""Object stores: the protocol that keeps files safe with puts, gets and listings alone."""

from __future__ import annotations

from .backend import ObjectBackend

__all__ = ["ObjectBackend"]
