"""Settings of the driver for one app, in comments of the app that begin with ``#:``.

* ``#: login NAME PASSWORD``: the app has a login.
* ``#: oauth``: visitors log in with ``gr.LoginButton``.
* ``#: calls FUNCTION JSON``: the page calls this function of a component with this argument.
* ``#: documented PART: SENTENCE``: steps with PART in their names may be worse, for that reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Settings:
    """The settings in an app's comments."""

    login: tuple[str, str] | None = None
    oauth: bool = False
    calls: list[tuple[str, Any]] = field(default_factory=list)
    documented: dict[str, str] = field(default_factory=dict)


def read(app: Path) -> Settings:
    """Return the settings in an app's source."""
    settings = Settings()
    for line in app.read_text(errors="replace").splitlines():
        match line.removeprefix("#: ").split() if line.startswith("#: ") else []:
            case ["login", name, password]:
                settings.login = name, password
            case ["oauth"]:
                settings.oauth = True
            case ["calls", function, *argument]:
                settings.calls.append((function, json.loads(" ".join(argument))))
            case ["documented", *words]:
                part, _, sentence = " ".join(words).partition(": ")
                settings.documented[part] = sentence
    return settings
