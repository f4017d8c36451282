"""Install pip into the virtual environment that runs this, where ensurepip is missing (Debian).

The wheel comes from the index that pip would use, and must have the SHA-256 that the index gives for it.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

DEFAULT_INDEX = "https://pypi.org/simple"
# PEP 691, and PEP 503 for the indexes that do not know it.
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
ATTEMPTS = 3


class Problem(Exception):
    """What is so, and the next step."""

    def __init__(self, found: str, hint: str = "PIP_INDEX_URL names another package index") -> None:
        super().__init__(f"{found}\nhint: {hint}")


@dataclass(frozen=True)
class Wheel:
    """One file of the index."""

    name: str
    url: str
    sha256: str
    requires_python: str


# --- pip's configuration ---------------------------------------------------------------------------------


def configuration_files() -> list[Path]:
    """Return the files that pip reads, the strongest last."""
    home = Path.home()
    user = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        user / "pip/pip.conf",
    ]
    if named := os.environ.get("PIP_CONFIG_FILE"):
        if named == os.devnull:
            return []
        files.append(Path(named))
    return files


def configured(option: str) -> str | None:
    """Return pip's value of `option` ("index-url"): the environment's, or the strongest file's."""
    if value := os.environ.get("PIP_" + option.upper().replace("-", "_")):
        return value
    found = None
    for path in configuration_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except configparser.Error as error:
            raise Problem(f"{path}: {error}") from None
        for section in ("global", "install"):
            for key in (option, option.replace("-", "_")):
                found = parser.get(section, key, fallback=None) or found
    return found


# --- the index -------------------------------------------------------------------------------------------


def without_login(url: str) -> tuple[str, str | None]:
    """Split "https://user:password@host/" into the URL and the value of an Authorization header."""
    parts = urllib.parse.urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = login.partition(":")
    plain = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password)}".encode()
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), "Basic " + base64.b64encode(plain).decode()


def fetch(url: str, login: str | None, trust: ssl.SSLContext) -> tuple[bytes, str, str]:
    """Return the content, its type and the address that it came from in the end."""
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise Problem(f"{url}: expected an http or https address")
    request = urllib.request.Request(url, headers={"Accept": ACCEPT, "User-Agent": "layout-get-pip"})  # noqa: S310
    if login:
        # "unredirected": never handed on to another host.
        request.add_unredirected_header("Authorization", login)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(request, timeout=60, context=trust) as answer:  # noqa: S310
                return answer.read(), answer.headers.get_content_type(), answer.url
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == ATTEMPTS:
                raise Problem(f"{url}: {error}") from None
        except OSError as error:
            if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError):
                hint = "install ca-certificates, or name the authorities to trust: PIP_CERT=FILE"
                raise Problem(f"{url}: {error}", hint) from None
            if attempt == ATTEMPTS:
                raise Problem(f"{url}: {getattr(error, 'reason', error)}") from None
        time.sleep(attempt)
    raise AssertionError


class Links(HTMLParser):
    """The anchors of a PEP 503 page."""

    def __init__(self, page: str, base: str) -> None:
        super().__init__()
        self.base = base
        self.wheels: list[Wheel] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an anchor, unless the release was withdrawn."""
        found = dict(attrs)
        if tag != "a" or "data-yanked" in found:
            return
        url, fragment = urllib.parse.urldefrag(urllib.parse.urljoin(self.base, found.get("href") or ""))
        name = urllib.parse.unquote(url.rpartition("/")[2])
        sha256 = dict(urllib.parse.parse_qsl(fragment)).get("sha256", "")
        self.wheels.append(Wheel(name, url, sha256, found.get("data-requires-python") or ""))


def wheels(content: bytes, content_type: str, base: str) -> list[Wheel]:
    """Read a page of the simple index, in either of its forms."""
    if not content_type.endswith("json"):
        return Links(content.decode("utf-8", "replace"), base).wheels
    return [
        Wheel(
            file["filename"],
            urllib.parse.urldefrag(urllib.parse.urljoin(base, file["url"])).url,
            file.get("hashes", {}).get("sha256", ""),
            file.get("requires-python") or "",
        )
        for file in json.loads(content).get("files", [])
        if not file.get("yanked")
    ]


def version(wheel: Wheel) -> tuple[int, ...] | None:
    """Return the version of a final release of pip, as a pure wheel; else None."""
    match = re.fullmatch(
        r"pip-(\d+(?:\.\d+)*)-py3-none-any\.whl|pip-(\d+(?:\.\d+)*)-py2\.py3-none-any\.whl", wheel.name
    )
    return tuple(map(int, (match[1] or match[2]).split("."))) if match else None


def runs_here(wheel: Wheel) -> bool:
    """Say whether the lower bound of Requires-Python lets this interpreter in; pip has no other kind."""
    bounds = re.findall(r">=\s*(\d+(?:\.\d+)*)", wheel.requires_python)
    return all(tuple(map(int, bound.split("."))) <= sys.version_info[:3] for bound in bounds)


def newest(found: list[Wheel]) -> Wheel:
    """Choose the newest pip that runs here."""
    usable = [(number, wheel) for wheel in found if (number := version(wheel)) and runs_here(wheel)]
    if not usable:
        raise Problem("the index has no pip for this Python")
    return max(usable, key=lambda pair: pair[0])[1]


def main() -> None:
    """Fetch, check, install."""
    index, login = without_login(configured("index-url") or DEFAULT_INDEX)
    trust = ssl.create_default_context(cafile=configured("cert"))
    content, content_type, address = fetch(f"{index.rstrip('/')}/pip/", login, trust)
    wheel = newest(wheels(content, content_type, address))
    if not re.fullmatch(r"[0-9a-f]{64}", wheel.sha256):
        raise Problem(f"{wheel.url}: the index gives no SHA-256 for it")
    same_host = urllib.parse.urlsplit(wheel.url).netloc == urllib.parse.urlsplit(index).netloc
    # A link may carry a login of its own.
    url, own_login = without_login(wheel.url)
    content, _, _ = fetch(url, own_login or (login if same_host else None), trust)
    found = hashlib.sha256(content).hexdigest()
    if found != wheel.sha256:
        raise Problem(f"{url}: found SHA-256 {found}, expected {wheel.sha256}")
    with tempfile.TemporaryDirectory(dir=sys.prefix) as folder:
        path = Path(folder, wheel.name)
        path.write_bytes(content)
        # A wheel is a zip file, which Python runs from.
        command = [
            sys.executable,
            f"{path}/pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--no-cache-dir",
        ]
        subprocess.run([*command, "--disable-pip-version-check", str(path)], check=True)


if __name__ == "__main__":
    if sys.prefix == sys.base_prefix:
        sys.exit("get_pip: run by the system's Python, expected that of a virtual environment")
    try:
        main()
    except Problem as problem:
        sys.exit(f"get_pip: {problem}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"get_pip: pip exited with status {error.returncode}")
