"""Files in and out of a sandbox, done inside it: the same on both runtimes."""

import pytest

from ephemeral_sandboxd.runtimes import FileProblem, Gone

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_file_goes_in_and_comes_out_byte_by_byte(box, value):
    data = bytes(range(256)) * 40_000
    assert await box.write_file("deep/down/data.bin", data) == len(data)
    assert await value(box, "len(open('/scratch/deep/down/data.bin', 'rb').read())") == str(len(data))
    read = b""
    while piece := await box.read_file("deep/down/data.bin", len(read)):
        read += piece
    assert read == data


async def test_a_directory_is_listed_with_kinds_and_sizes(box, run):
    await run(box, "import os\nos.makedirs('/scratch/listed/sub', exist_ok=True)\nopen('/scratch/listed/a.txt', 'w').write('abc')\nos.path.lexists('/scratch/listed/l') or os.symlink('/etc/passwd', '/scratch/listed/l')")
    entries = {entry["path"]: entry for entry in await box.list_files("listed")}
    assert {path: entry["kind"] for path, entry in entries.items()} == {
        "/scratch/listed/a.txt": "file", "/scratch/listed/l": "link", "/scratch/listed/sub": "directory"}
    assert entries["/scratch/listed/a.txt"]["size_bytes"] == 3
    assert entries["/scratch/listed/a.txt"]["modified_at"] > 1e9


async def test_a_file_is_read_whole_or_in_part(box):
    data = bytes(range(256)) * 40_000
    await box.write_file("whole.bin", data)
    assert await box.read_file("whole.bin") == data
    assert await box.read_file("whole.bin", 5, 3) == data[5:8]
    assert await box.read_file("whole.bin", len(data)) == b""
    assert await box.write_file("whole.bin", b"more", append=True) == len(data) + 4


async def test_a_directory_can_be_made_and_is_empty(box):
    await box.make_directory("made/here")
    await box.make_directory("made/here")
    assert await box.list_files("made/here") == []
    assert [entry["name"] for entry in await box.list_files("made")] == ["here"]
    await box.write_file("made/file", b"")
    with pytest.raises(FileProblem) as problem:
        await box.make_directory("made/file")
    assert problem.value.kind == "exists"


async def test_a_guest_that_answers_nonsense_about_files_is_ended(boot, run):
    for do, forged in (("list_files", {"entries": [{"path": 1}]}), ("list_files", {"entries": 5}), ("read_file", {"data": "abc"}), ("write_file", {"size": "x"})):
        box = await boot()
        await run(box, f"display.__self__.do_file = lambda frame: {forged!r}")
        with pytest.raises(Gone) as gone:
            await (box.write_file("x", b"x") if do == "write_file" else getattr(box, do)("x"))
        assert gone.value.verdict == "crashed"
        assert not box.alive


async def test_files_and_directories_can_be_deleted(box):
    await box.write_file("gone/x", b"1")
    await box.delete_file("gone")
    with pytest.raises(FileProblem) as problem:
        await box.list_files("gone")
    assert problem.value.kind == "not_found"


@pytest.mark.parametrize(("path", "kind"), [("/etc/hostile", "not_allowed"), ("/ephemeral/guest.py", "not_allowed"), ("../../../../etc/x", "not_allowed"), ("/slots/0/x", "not_allowed")])
async def test_nothing_can_be_written_where_the_sandbox_may_not(box, path, kind):
    with pytest.raises(FileProblem) as problem:
        await box.write_file(path, b"x")
    assert problem.value.kind == kind


async def test_a_path_leads_to_the_sandboxs_own_files_never_to_the_hosts(box, tmp_path, run):
    (tmp_path / "secret").write_text("of the host")
    with pytest.raises(FileProblem):
        await box.read_file(str(tmp_path / "secret"))
    await run(box, f"import os\nos.symlink({str(tmp_path / 'secret')!r}, '/scratch/way-out')")
    with pytest.raises(FileProblem):
        await box.read_file("way-out")
    with pytest.raises(FileProblem):
        await box.write_file("way-out", b"x")
    assert (tmp_path / "secret").read_text() == "of the host"


async def test_a_pipe_in_the_way_does_not_hang_anybody(box, run):
    await run(box, "import os\nos.mkfifo('/scratch/pipe')")
    for attempt in (box.read_file("pipe"), box.write_file("pipe", b"x")):
        with pytest.raises(FileProblem):
            await attempt


async def test_a_full_scratch_is_said(boot):
    box = await boot()
    for number in range(2):
        await box.write_file(f"big-{number}", bytes(48 << 20))
    with pytest.raises(FileProblem) as problem:
        await box.write_file("big-2", bytes(48 << 20))
    assert problem.value.kind == "no_space"
