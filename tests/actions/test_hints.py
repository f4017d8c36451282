"""A hint is made to be pasted: a name in it is a word of the shell, whoever has chosen it."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from layout.actions.verifying import host

if TYPE_CHECKING:
    from pathlib import Path


def test_a_name_in_a_directory_of_profiles_that_others_can_write_to_is_no_command(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    for directory in (etc, etc / "profiles"):
        directory.mkdir()
        directory.chmod(0o755)  # whatever the umask is
    loose = etc / "profiles/a; touch pwned; it's.toml"
    loose.touch()
    loose.chmod(0o666)
    scene: Any = SimpleNamespace(checks=0, site=SimpleNamespace(etc=str(etc)))
    (found,) = host.configuration(scene)
    assert found.path == str(loose)
    subprocess.run(["sh", "-c", found.hint], cwd=tmp_path, stderr=subprocess.DEVNULL, check=False)
    assert loose.stat().st_mode & 0o777 == 0o644
    assert not (tmp_path / "pwned").exists()
