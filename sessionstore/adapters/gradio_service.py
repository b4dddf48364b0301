"""What runs while apps that share a store are being served: presence, and one sweeper."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from sessionstore.adapters.gradio_presence import Presences
from sessionstore.background import Sweeping

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from gradio.routes import App

    from sessionstore.store import SessionStore


class Service:
    """One store's, for all demos of this process that are attached to it.

    It runs from the first app that starts serving to the last that stops. An app that does not say
    so (mounted where no lifespan reaches it) starts with its first request and runs to the end of
    the process.
    """

    def __init__(self, store: SessionStore, cache: Path, sweep_every: timedelta) -> None:
        """Move the store's working copies to ``cache``, where Gradio serves files in place.

        Raises ValueError when ``sweep_every`` is not longer than zero.
        """
        self.store = store
        self.presences = Presences(store)
        beat = self.presences.beat
        self._beating = Sweeping(store.clock, beat, store.live_interval, "heartbeat")
        self._sweeping = store.sweeping(every=sweep_every)
        self._lock = threading.Lock()
        self._apps: weakref.WeakSet[App] = weakref.WeakSet()
        self._move_copies_back = store.keep_working_copies_in(cache)

    def serving(self, app: App) -> None:
        """The app serves from now on. Cheap when that is known."""
        if app in self._apps:
            return
        with self._lock:
            self._apps.add(app)
            self.presences.start()
            self._beating.start()
            self._sweeping.start()

    def stopped(self, app: App) -> None:
        """The app serves no more. Waits for what is under way; ends no session."""
        with self._lock:
            self._apps.discard(app)
            if not self._apps:
                self._stop()

    def close(self) -> None:
        """No app is served with this store any more; its working copies go where they were."""
        with self._lock:
            self._apps.clear()
            self._stop()
            self._move_copies_back()

    def _stop(self) -> None:
        self._sweeping.stop()
        self._beating.stop()
        self.presences.stop()
