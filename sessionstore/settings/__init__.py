"""Settings of a store: keywords, the environment and TOML files, resolved into one object."""

from __future__ import annotations

from sessionstore.settings.resolver import Settings, resolve

__all__ = ["Settings", "resolve"]
