"""What the tests of commands share: their modules beside them, layout in this process, a base, a client."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from net_yard import Outside
    from yard import Said

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(name="layout")
def _layout() -> Callable[..., Said]:
    """Run layout in this process: as a user does, only faster."""
    from yard import layout

    return layout


@pytest.fixture(name="base", scope="module")
def _base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of small_base, for all tests of a module."""
    from small_base import build

    top = tmp_path_factory.mktemp("base").resolve()
    top.chmod(0o755)
    return build(top / "base")


@pytest.fixture(name="client", scope="module")
def _client() -> Iterator[Outside]:
    """A client in a network of its own."""
    from net_yard import missing, outside

    if missing():
        pytest.skip(f"needs {missing()}")
    with outside() as client:
        yield client
