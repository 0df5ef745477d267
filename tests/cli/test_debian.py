"""Reading apt's sources: which mirror this machine uses."""

from pathlib import Path

import pytest

from ephemeral_cli.errors import CommandError
from ephemeral_cli.setup import debian

BOOKWORM = """\
Types: deb
# http://snapshot.example/archive/debian/20250520T000000Z
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""


def apt_directory(path: Path, **files: str) -> Path:
    (path / "sources.list.d").mkdir(parents=True)
    for name, text in files.items():
        (path / "sources.list.d" / name.replace("_", ".")).write_text(text)
    return path


def test_deb822_stanzas_give_their_uris_and_suites() -> None:
    assert list(debian.parse_deb822(BOOKWORM)) == [
        debian.Source("http://mirror.example/debian", ("bookworm", "bookworm-updates")),
        debian.Source("http://mirror.example/debian-security", ("bookworm-security",)),
    ]


def test_disabled_and_source_only_stanzas_are_passed_over() -> None:
    text = "Types: deb\nEnabled: no\nURIs: http://a.example/debian\nSuites: x\n\nTypes: deb-src\nURIs: http://b.example/debian\nSuites: x\n"
    assert list(debian.parse_deb822(text)) == []


def test_continued_fields_are_read_to_their_end() -> None:
    found = list(debian.parse_deb822("Types: deb\nURIs:\n http://a.example/debian/\n http://b.example/debian\nSuites: s\n"))
    assert [source.uri for source in found] == ["http://a.example/debian", "http://b.example/debian"]


def test_one_line_sources_are_read_with_and_without_options() -> None:
    text = "# comment\ndeb [arch=amd64 signed-by=/k.gpg] http://a.example/debian trixie main\ndeb-src http://a.example/debian trixie main\ndeb http://b.example/debian/ sid main # why\n"
    assert list(debian.parse_list(text)) == [debian.Source("http://a.example/debian", ("trixie",)), debian.Source("http://b.example/debian", ("sid",))]


def test_the_mirror_is_the_machines_own_main_archive(tmp_path: Path) -> None:
    directory = apt_directory(tmp_path, a_list="deb http://other.example/tools stable main\n", debian_sources=BOOKWORM, broken_save="deb http://no.example/debian x main")
    assert debian.mirror(directory) == "http://mirror.example/debian"


def test_a_machine_without_debian_sources_is_asked_for_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = apt_directory(tmp_path, ubuntu_list="deb http://archive.example/ubuntu noble main\n")
    with pytest.raises(CommandError, match="no Debian mirror"):
        debian.mirror(directory)
    monkeypatch.setenv(debian.MIRROR_VARIABLE, "http://mirror.example/debian")
    assert debian.mirror(directory) == "http://mirror.example/debian"


def test_packages_that_are_not_installed_are_told_apart() -> None:
    assert debian.missing(["dpkg", "no-such-package-of-ours"]) == ["no-such-package-of-ours"]
