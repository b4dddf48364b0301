"""A box of files for each visitor, without Gradio: gone a while after the visitor left.

A visitor is a cookie, and their files are one session. The page says every few seconds that it is
open, and with a beacon that it closes. Five minutes later (SESSIONSTORE_LINGER) the files are gone,
unless the visitor came back or has another tab open.

Set SESSIONSTORE_URL to the place (a directory will do) and run it; PORT is where it listens.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse

from sessionstore import Session, SessionStore, StoredFile
from sessionstore.adapters.asgi import Files, OwnerCookie, owner, same_origin

# What one visitor may keep; each can be set in the environment as well.
os.environ.setdefault("SESSIONSTORE_MAX_FILE", "200MB")
os.environ.setdefault("SESSIONSTORE_MAX_SESSION", "500MB")
store = SessionStore.open(base_url="/files")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Sweep while the app is served: whoever leaves without a word is found too."""
    with store.sweeping():
        yield


def visitor(request: Request) -> Session:
    """The visitor's own session."""
    name = owner(request)
    if name is None:
        raise HTTPException(403, "Load the page first: it brings the cookie.")
    return store.session("box", name)


def from_this_site(request: Request) -> None:
    """Refuse what another site made the visitor's browser ask for."""
    if not same_origin(request):
        raise HTTPException(403, "Use this site's own page.")


Mine = Annotated[Session, Depends(visitor)]
app = FastAPI(title="File box", lifespan=lifespan)
app.add_middleware(OwnerCookie)
app.mount("/files", Files(store, visitor, private=True))


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """The page."""
    return Path(__file__).with_name("fastapi_files.html").read_text()


@app.get("/list")
def files(mine: Mine) -> dict[str, object]:
    """What the visitor has, and how much more fits."""
    kept = mine.files()
    return {
        "files": [described(file) for file in kept],
        "used": sum(file.size for file in kept),
        "room": store.ledger.limits.max_session,
    }


def described(file: StoredFile) -> dict[str, object]:
    """A file as the page shows it, with a URL that is good for five minutes."""
    return {
        "name": file.name,
        "size": file.size,
        "type": file.media_type,
        "created": file.created,
        "url": file.url(),
    }


@app.post("/delete", dependencies=[Depends(from_this_site)])
def delete(name: str, mine: Mine) -> None:
    """Delete one of the visitor's files."""
    mine.delete(name)


@app.post("/here", dependencies=[Depends(from_this_site)])
def here(mine: Mine) -> None:
    """The page is open. A first call cancels the end of a page before."""
    mine.resume()


@app.post("/leave", dependencies=[Depends(from_this_site)])
def leave(mine: Mine) -> None:
    """The page closes: the files go after the linger."""
    mine.end()


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
