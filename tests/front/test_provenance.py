"""Where a checkpoint comes from: the commit that is checked out, read without git."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from holdfast.front.provenance import git_commit, versions


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("no git")
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    git_commit.cache_clear()
    yield folder
    git_commit.cache_clear()


@pytest.mark.parametrize("state", ["branch", "detached", "packed", "subfolder", "worktree"])
def test_the_commit_is_gits_own(repository, state):
    """On a branch, detached, with packed references, in a subfolder and in a worktree: what git itself says."""
    folder = repository
    if state == "detached":
        git(folder, "checkout", "-q", "--detach")
    elif state == "packed":
        git(folder, "pack-refs", "--all")
    elif state == "subfolder":
        folder = repository / "a" / "b"
        folder.mkdir(parents=True)
    elif state == "worktree":
        folder = repository.parent / "tree"
        git(repository, "worktree", "add", "-q", "-b", "other", str(folder))
    assert git_commit(str(folder)) == git(folder, "rev-parse", "HEAD")


def test_without_a_repository_there_is_no_commit(tmp_path):
    """Outside a repository, and in a broken one, there is no commit and no error."""
    assert git_commit(str(tmp_path)) is None
    (tmp_path / "broken" / ".git").mkdir(parents=True)
    assert git_commit(str(tmp_path / "broken")) is None
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / ".git").write_bytes(b"\xff\xfe")
    assert git_commit(str(tmp_path / "odd")) is None


def test_a_repository_without_commits(tmp_path):
    """A repository in which nothing was committed yet has no commit."""
    if shutil.which("git") is None:
        pytest.skip("no git")
    git(tmp_path, "init", "-q")
    assert git_commit(str(tmp_path)) is None


def test_versions_are_those_of_what_is_loaded():
    """The versions of Python, holdfast and the loaded frameworks, as text."""
    found = versions()
    assert {"python", "holdfast"} <= set(found)
    assert all(isinstance(version, str) for version in found.values())
