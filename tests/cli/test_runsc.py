"""Which runsc is usable. Stand-ins are small programs that behave as the bad ones do."""

from pathlib import Path

from ephemeral_cli.setup import runsc

SOUND = b"\x00\xff Go buildinf:\x08\x02" + bytes(16) + b"\x08go1.24.4\xb7\x04mod"
BAD = SOUND.replace(b"go1.24.4", b"go1.26.0")


def stand_in(path: Path, version: str, trailer: bytes = b"", start: str = "exit 0") -> Path:
    program = f'#!/bin/sh\nif [ "$1" = --version ]; then echo "runsc version {version}"; exit 0; fi\n{start}\nexit 0\n'
    path.write_bytes(program.encode() + b"# " + trailer + b"\n")
    path.chmod(0o755)
    return path


def test_the_go_release_is_read_from_the_build_information() -> None:
    assert runsc.go_version(SOUND) == (1, 24)
    assert runsc.go_version(BAD) == (1, 26)
    assert runsc.go_version(b"no go here") is None


def test_debian_12s_version_is_too_old(tmp_path: Path) -> None:
    assert "too old" in runsc.unusable(stand_in(tmp_path / "runsc", "0.0~20221219.0"), starts=1)


def test_the_rebuild_that_panics_is_refused_by_its_compiler(tmp_path: Path) -> None:
    assert "Go 1.26" in runsc.unusable(stand_in(tmp_path / "runsc", "0.0~20240729.0", BAD), starts=1)
    assert runsc.unusable(stand_in(tmp_path / "sound", "0.0~20240729.0", SOUND), starts=1) == ""


def test_one_start_that_fails_is_enough_to_refuse_it(tmp_path: Path) -> None:
    count = tmp_path / "count"
    start = f'echo x >> {count}\n[ "$(wc -l < {count})" = 3 ] && {{ echo boom >&2; exit 2; }}'
    assert "start 3 of 5 failed (2): boom" in runsc.unusable(stand_in(tmp_path / "runsc", "release-20260101.0", start=start), starts=5)


def test_what_is_no_program_is_not_usable(tmp_path: Path) -> None:
    (tmp_path / "runsc").write_text("hello")
    assert "executable" in runsc.unusable(tmp_path / "runsc", starts=1)


def test_a_record_whose_file_is_gone_or_changed_does_not_count(tmp_path: Path) -> None:
    assert runsc.recorded(tmp_path) is None
    source = stand_in(tmp_path / "source", "release-20260101.0")
    published = runsc._publish(tmp_path, source, "a test")
    assert runsc.recorded(tmp_path) == published
    Path(published.path).write_text("half")
    assert runsc.recorded(tmp_path) is None
    (tmp_path / "runsc.json").write_text("{not json")
    assert runsc.recorded(tmp_path) is None
