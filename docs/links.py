"""Fails if a local link of the site is broken: `python docs/links.py build/site`."""

from html.parser import HTMLParser
from pathlib import Path
import sys
from urllib.parse import unquote
from urllib.parse import urlsplit


class Page(HTMLParser):
    """The links of a page, and the ids that others can link to."""

    def __init__(self, path: Path):
        """Reads the page."""
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        """Collects what a tag links to, and its id."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name == "id" and value:
                self.ids.add(value)


def broken(site: Path) -> list[str]:
    """A line for each link whose file or anchor doesn't exist."""
    site = site.resolve()
    own = site / "_static"  # of the theme
    paths = [path for path in site.rglob("*.html") if own not in path.parents]
    pages = {path: Page(path) for path in paths}
    lines = []
    for path, page in pages.items():
        for link in sorted(page.links):
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            anchor = unquote(url.fragment)
            missing = anchor and target in pages and anchor not in pages[target].ids
            if missing or not target.is_file():
                lines.append(f"{path.relative_to(site)}: {link}")
    return lines


if __name__ == "__main__":
    sys.exit("\n".join(broken(Path(sys.argv[1]))) or None)
