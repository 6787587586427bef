"""Checks the built site: a page loads nothing from elsewhere, and all that it names is there."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself; `href` of <a> is only followed.
LOADED = {"src", "srcset", "poster", "data", "action"}


class Page(HTMLParser):
    """The ids of a page, what it loads, and where its links lead."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.loads, self.links = set(), [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            elif name in LOADED or (name == "href" and tag not in ("a", "area")):
                self.loads.append(value)
            elif name == "href":
                self.links.append(value)


def is_elsewhere(address):
    """True for an address with a scheme or a host; what stands in the page itself is not."""
    parts = urlsplit(address)
    return (parts.scheme not in ("", "data")) or parts.netloc != ""


def problems(site):
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    # Not a page of ours: a server shows it under any path, so what it names begins at the root.
    pages.pop(site / "404.html", None)
    for path, page in pages.items():
        name = path.relative_to(site)
        for address in page.loads:
            if is_elsewhere(address):
                yield f"{name} loads {address}"
        for address in page.loads + page.links:
            if is_elsewhere(address) or address.startswith("data:"):
                continue
            parts = urlsplit(address)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{name}: {address} is not there"
            elif parts.fragment and target in pages and parts.fragment not in pages[target].ids:
                yield f"{name}: {address} has no such place"
    for path in sorted(site.rglob("*.css")):
        for address in re.findall(r"(?:@import\s+(?:url\()?|url\()[\"']?([^\"')\s;]+)", path.read_text()):
            if is_elsewhere(address):
                yield f"{path.relative_to(site)} loads {address}"
    if len(pages) < 30:
        yield f"only {len(pages)} pages"


def main():
    found = list(problems(Path(sys.argv[1]).resolve()))
    print("\n".join(found) if found else "site: passed")
    sys.exit(bool(found))


main()
