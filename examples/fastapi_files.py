"""A file box for each visitor, without Gradio: it is deleted some time after the visitor left.

A cookie identifies the visitor, and one session holds their files. The page sends a heartbeat every
few seconds while it is open, and a beacon when it closes. Five minutes later (SESSIONSTORE_LINGER)
the files are deleted, unless the visitor came back or has another tab open.

Set SESSIONSTORE_URL (a directory is enough) and run it. PORT is the port of the server.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse

from sessionstore import Session, SessionStore, StoredFile
from sessionstore.adapters.asgi.app import Files, OwnerCookie, owner, same_origin
from sessionstore.backend import SignsUploads

# The limits of one visitor; the environment can set other values.
os.environ.setdefault("SESSIONSTORE_MAX_FILE", "200MB")
os.environ.setdefault("SESSIONSTORE_MAX_SESSION", "500MB")
store = SessionStore.open(base_url="/files")
# In a bucket with a CORS rule for this app, the page sends files past it: see docs/s3.md.
signed = isinstance(store.backend, SignsUploads) and "SIGNED_UPLOADS" in os.environ


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Sweep while the app runs: this also finds visitors without a beacon."""
    with store.sweeping():
        yield


def visitor(request: Request) -> Session:
    """Return the visitor's own session."""
    name = owner(request)
    if name is None:
        raise HTTPException(403, "The cookie is missing: load the page first.")
    return store.session("box", name)


def from_this_site(request: Request) -> None:
    """Refuse a request that another site's page sent (CSRF)."""
    if not same_origin(request):
        raise HTTPException(403, "The request came from another site: use this site's own page.")


Mine = Annotated[Session, Depends(visitor)]
app = FastAPI(title="File box", lifespan=lifespan)
app.add_middleware(OwnerCookie)
app.mount("/files", Files(store, visitor, private=True, signed_uploads=signed))


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """Return the page."""
    return Path(__file__).with_name("fastapi_files.html").read_text()


@app.get("/signed_upload.js")
def script() -> FileResponse:
    """Return the script that sends a file straight to the bucket."""
    return FileResponse(Path(__file__).with_name("signed_upload.js"))


@app.get("/list")
def files(mine: Mine) -> dict[str, object]:
    """Return the visitor's files, their total size, and the limit."""
    kept = mine.files()
    return {
        "files": [described(file) for file in kept],
        "used": sum(file.size for file in kept),
        "room": store.limits.max_session,
        "signed": signed,
    }


def described(file: StoredFile) -> dict[str, object]:
    """Return a file's fields for the page, with a URL that is valid for five minutes."""
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
    """Handle the heartbeat of an open page. It also cancels the end that a closed page sent."""
    mine.resume()


@app.post("/leave", dependencies=[Depends(from_this_site)])
def leave(mine: Mine) -> None:
    """Handle the beacon of a closing page: the files are deleted after the linger."""
    mine.end()


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
