"""Opens that stay beneath a job's directory, whatever is planted there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from shoal_gateway.appmanager import beneath
from tests.support.rooted import needs_root


class TestBeneath:
    """What is opened below a directory that a job has filled."""

    @pytest.fixture
    def work(self, tmp_path):
        (tmp_path / "secret").write_text("not the job's")
        made = tmp_path / "work"
        (made / "sub").mkdir(parents=True)
        (made / "sub" / "file").write_text("the job's")
        return made

    def read(self, work, name, **options):
        with os.fdopen(beneath.opened(work, name, **options)) as file:
            return file.read()

    def test_files_and_links_that_stay_below_are_opened(self, work):
        (work / "link").symlink_to("sub/file")
        (work / "away").symlink_to(work / "sub")
        for name in ("sub/file", "link", "away/file"):
            assert self.read(work, name) == "the job's"

    @pytest.mark.parametrize(
        "target", ["/etc/passwd", "../secret", "sub/../../secret", "/proc/self/environ", "."]
    )
    def test_links_that_lead_out_are_not(self, work, target):
        (work / "x").symlink_to(target)
        (work / "d").symlink_to(Path(target).parent)
        for name in ("x", f"d/{Path(target).name}"):
            with pytest.raises(OSError):  # noqa: PT011 - whichever it is
                self.read(work, name)

    def test_what_is_no_plain_file_is_not(self, work):
        os.mkfifo(work / "pipe")
        for name in ("pipe", "sub", "missing"):
            with pytest.raises(OSError):  # noqa: PT011 - whichever it is
                self.read(work, name)

    def test_a_link_that_is_put_in_place_after_the_look_is_not_followed(self, work, monkeypatch):
        real = os.path.realpath

        def late(path):
            found = real(path)
            if str(path).endswith("sub/file"):
                shutil.rmtree(work / "sub")
                (work / "sub").symlink_to(work.parent)
                (work.parent / "file").write_text("not the job's")
            return found

        monkeypatch.setattr(os.path, "realpath", late)
        with pytest.raises(OSError):  # noqa: PT011 - whichever it is
            self.read(work, "sub/file")

    @needs_root
    def test_a_hard_link_to_anothers_file_is_not(self, work):
        os.link(work.parent / "secret", work / "hard")
        os.chown(work / "sub" / "file", 70_000, 70_000)
        assert self.read(work, "sub/file", owner=70_000) == "the job's"
        with pytest.raises(FileNotFoundError):
            self.read(work, "hard", owner=70_000)

    def test_new_files_are_made_and_links_in_the_way_are_not_followed(self, work):
        os.close(beneath.created(work, "a/b/c"))
        assert (work / "a" / "b" / "c").is_file()
        (work / "x").symlink_to(work.parent / "secret")
        (work / "d").symlink_to(work.parent)
        for name in ("x", "d/secret", "a/b/c", "sub"):
            with pytest.raises(OSError):  # noqa: PT011 - whichever it is
                beneath.created(work, name)
        assert (work.parent / "secret").read_text() == "not the job's"
