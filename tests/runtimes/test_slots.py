"""Directories mounted into a sandbox while it runs: the same on both runtimes."""

import pytest

from ephemeral_sandboxd.errors import Unavailable
from ephemeral_sandboxd.runtimes import Size

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def package(tmp_path):
    """Make a directory with one module: ``package("name", "text")``."""

    def make(name: str, text: str = ""):
        folder = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        (folder / f"{name}.py").write_text(text or f"where = {name!r}\n")
        return folder

    return make


async def test_a_directory_mounted_while_it_runs_appears_and_can_be_imported(boot, run, package):
    box = await boot()
    missing = await run(box, "import late_package")
    assert "ModuleNotFoundError" in missing.fields["traceback"]
    slot = box.mount(3, package("late_package"))
    assert slot == "/slots/3"
    found = await run(box, "import late_package\nlate_package.where, late_package.__file__", slots=[slot])
    assert found.fields["result"] == "('late_package', '/slots/3/late_package.py')"


async def test_a_slot_mounted_at_the_start_is_there_from_the_start(boot, run, package):
    box = await boot(slots={0: package("early_package")})
    assert (await run(box, "import early_package", slots=["/slots/0"])).fields["traceback"] is None


async def test_first_slots_win_over_the_others(boot, run, package):
    box = await boot(slots={0: package("twice", "which = 'base'"), 1: package("twice", "which = 'repair'")})
    answer = await run(box, "import twice; twice.which", slots=["/slots/0"], first=["/slots/1"])
    assert answer.fields["result"] == "'repair'"


async def test_programs_that_the_code_starts_find_the_packages_as_well(boot, run, package):
    box = await boot(slots={0: package("for_children")})
    answer = await run(box, "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import for_children; print(for_children.where)'])")
    assert "".join(answer.stdout) == "for_children\n"


async def test_slots_cannot_be_written_nor_unmounted_from_inside(boot, run, value, package):
    folder = package("guarded")
    box = await boot(slots={0: folder})
    for code in ("open('/slots/0/guarded.py', 'a')", "open('/slots/0/new', 'w')", "os.remove('/slots/0/guarded.py')", "os.chmod('/slots/0', 0o777)"):
        answer = await run(box, f"import os\n{code}")
        assert answer.fields["traceback"].splitlines()[-1].startswith(("OSError", "PermissionError")), code
    assert await value(box, "import ctypes; ctypes.CDLL(None).umount2(b'/slots/0', 2)") == "-1"
    assert sorted(entry.name for entry in folder.iterdir()) == ["guarded.py"]


async def test_a_slot_shows_in_its_own_sandbox_only(boot, value, package):
    one, other = await boot(), await boot()
    one.mount(0, package("mine"))
    assert await value(one, "import os; os.listdir('/slots/0')") == "['mine.py']"
    assert await value(other, "import os; os.listdir('/slots/0')") == "[]"


async def test_a_slot_that_there_is_not_is_refused(box, tmp_path):
    for slot in (-1, 16):
        with pytest.raises(ValueError, match=f"has no slot {slot}"):
            box.mount(slot, tmp_path)


async def test_a_slot_whose_directory_is_gone_fails_the_start_and_leaves_nothing(place, tmp_path):
    with pytest.raises(Unavailable, match="never_there"):
        await place.runtime.start("unmountable", Size(256 << 20, 1.0, 64, 32 << 20), slots={0: tmp_path / "never_there"})
    assert place.left("unmountable") == []
