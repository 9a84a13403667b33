import subprocess
from pathlib import Path

import pytest

from wan22_testing.images.source import Source


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")
    dates = {"GIT_COMMITTER_DATE": "2026-03-01T10:00:00+02:00", "GIT_AUTHOR_DATE": "2026-03-01T10:00:00+02:00"}
    command = ["git", "-C", str(root), *identity, *arguments]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/local/bin:/usr/bin:/bin", **dates})


@pytest.fixture
def source(tmp_path: Path) -> Source:
    root = tmp_path / "tree"
    (root / "folder").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (root / ".gitignore").write_text("*.log\n")
    (root / "folder" / "program").write_text("#!/bin/sh\n")
    (root / "folder" / "program").chmod(0o700)
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=first")
    return Source(root)


def test_a_tag_names_the_version_and_the_commit(source: Source) -> None:
    assert len(source.commit) == 40
    assert source.tag == f"1.2.3-g{source.commit[:12]}"
    assert source.created == "2026-03-01T08:00:00Z"


def test_a_tag_says_that_files_differ_from_the_commit(source: Source) -> None:
    (source.root / "ignored.log").write_text("")
    assert not source.tag.endswith("-changed")
    (source.root / "new").write_text("")
    assert source.tag == f"1.2.3-g{source.commit[:12]}-changed"


def test_a_copy_has_what_git_would_add_and_its_modes_alone(source: Source, tmp_path: Path) -> None:
    (source.root / "ignored.log").write_text("")
    (source.root / "new").write_text("new")
    (source.root / "new").chmod(0o664)
    source.copy_to(tmp_path / "copy")
    modes = {
        str(path.relative_to(tmp_path / "copy")): oct(path.stat().st_mode & 0o777)
        for path in (tmp_path / "copy").rglob("*")
        if path.is_file()
    }
    assert modes == {".gitignore": "0o644", "pyproject.toml": "0o644", "folder/program": "0o755", "new": "0o644"}
    assert (tmp_path / "copy" / "new").read_text() == "new"
    assert {path.stat().st_mtime for path in (tmp_path / "copy").rglob("*")} == {0.0}


def test_a_file_that_is_deleted_and_not_committed_is_left_out(source: Source, tmp_path: Path) -> None:
    (source.root / "folder" / "program").unlink()
    source.copy_to(tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [".gitignore", "pyproject.toml"]
