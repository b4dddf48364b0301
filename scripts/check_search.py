"""Check that the words of a reader find their page, in the search index of the built site.

`make docs` runs it on site/search/search_index.json. Words are split as the site's search does it:
by the separator of mkdocs.yml, which the index holds.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGES = {
    "ALB": "deploy-aws.html",
    "Fargate": "deploy-aws.html",
    "OAuth": "deploy-spaces.html",
    "ZeroGPU": "deploy-spaces.html",
    "Traefik": "deploy-kubernetes.html",
    "presigned": "s3.html",
    "orphan": "glossary.html",
    "garbage": "glossary.html",
    "readiness": "deployment.html",
    "liveness": "deployment.html",
    "sticky": "deployment.html",
    "docker": "deploy-compose.html",
    "MinIO": "s3.html",
    "migrate": "migrating.html",
    "outage": "failures.html",
    "throttles": "failures.html",
    "GDPR": "metrics.html",
    "idempotent": "failures.html",
    "pickled": "deploy-spaces.html",
    "traversal": "security.html",
    "XSS": "security.html",
    "egress": "costs.html",
    "limits": "quotas.html",
    "auth": "gradio.html",
    "moto": "testing.html",
}
"""A word that readers search for, and the page that answers."""


def missing(index: Mapping[str, Any]) -> list[str]:
    """Return the words that do not find their page in the index of mkdocs' search."""
    separator = re.compile(index["config"]["separator"])
    found: dict[str, set[str]] = {}
    for part in index["docs"]:
        text = re.sub(r"<[^>]+>", " ", f"{part['title']} {part['text']}")
        page = part["location"].partition("#")[0]
        for word in separator.split(text.lower()):
            found.setdefault(word, set()).add(page)
    return [word for word, page in PAGES.items() if page not in found.get(word.lower(), set())]


if __name__ == "__main__":
    lost = missing(json.loads(Path(sys.argv[1]).read_text()))
    if lost:
        sys.exit(f"The site's search does not find the page of: {', '.join(lost)}.")
