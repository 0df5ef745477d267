"""What code in a sandbox is, sees and reaches. The same on both runtimes."""

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_it_is_nobody_without_capabilities_or_a_way_to_get_any(box, value):
    assert await value(box, "import os; os.getuid(), os.geteuid(), os.getgid(), os.getgroups()") in ("(65534, 65534, 65534, [])", "(65534, 65534, 65534, [65534])")
    status = ast.literal_eval(await value(box, "dict(line.rstrip('\\n').split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)"))
    assert {kind: int(status[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd")} == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd"), 0)
    assert await value(box, "import ctypes; ctypes.CDLL(None).prctl(39, 0, 0, 0, 0)") == "1"  # PR_GET_NO_NEW_PRIVS


async def test_it_is_the_first_process_and_sees_no_other(box, value):
    assert await value(box, "import os; os.getpid(), [n for n in os.listdir('/proc') if n.isdigit()]") == "(1, ['1'])"


async def test_it_has_no_way_out(box, value):
    said = ast.literal_eval(await value(box, """
import socket
def attempt(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        try: s.connect(address)
        except OSError as problem: return type(problem).__name__
    return 'connected'
def lookup():
    try: return socket.gethostbyname('example.com')
    except OSError as problem: return 'unknown'
[attempt(socket.AF_INET, (ip, port)) for ip, port in (('127.0.0.1', 8787), ('127.0.0.1', 22), ('1.1.1.1', 53), ('169.254.169.254', 80), ('10.0.0.1', 80))] + [lookup()]
"""))
    assert "connected" not in said
    assert said[-1] == "unknown"
    assert ast.literal_eval(await value(box, "[name for _, name in socket.if_nameindex()]")) in ([], ["lo"])


@pytest.mark.parametrize("path", ["/", "/usr/bin", "/etc", "/slots", "/slots/0", "/ephemeral", "/root", "/var", "/dev", "/proc/sys/kernel"])
async def test_it_cannot_write_beyond_its_scratch(box, value, path):
    assert await value(box, f"""
def attempt(path):
    try:
        open(path + '/planted', 'w').close()
    except OSError as problem:
        return 'refused'
    return 'written'
attempt({path!r})
""") == "'refused'"


async def test_scratch_tmp_and_shm_can_be_written_and_run_from(box, value):
    for path in ("/scratch", "/tmp"):
        assert await value(box, f"""
import os, subprocess
path = {path!r} + '/program'
with open(path, 'w') as file: file.write('#!/bin/sh\\necho ran\\n')
os.chmod(path, 0o755)
done = subprocess.run([path], capture_output=True, text=True).stdout
os.remove(path)
done
""") == "'ran\\n'"
    assert await value(box, "open('/dev/shm/x', 'w').write('x'), os.remove('/dev/shm/x')") == "(1, None)"


async def test_nothing_of_the_host_shows(place, box, value):
    assert ast.literal_eval(await value(box, "import os; [p for p in ('/work', '/var/lib/ephemeral', '/var/lib/docker', '/run/docker.sock', '/var/run/docker.sock', '/host') if os.path.exists(p)]")) == []
    mounts = ast.literal_eval(await value(box, "open('/proc/self/mounts').read()"))
    assert str(place.run) not in mounts
    environment = ast.literal_eval(await value(box, "dict(os.environ)"))
    assert set(environment) <= {
        "PATH", "HOME", "TMPDIR", "LANG", "LC_CTYPE", "MPLBACKEND", "MPLCONFIGDIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
        "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "HOSTNAME"}
    assert await value(box, "import socket; socket.gethostname()") == "'sandbox'"
    names = ast.literal_eval(await value(box, "open('/etc/resolv.conf').read() if os.path.exists('/etc/resolv.conf') else ''"))
    assert not [line for line in names.splitlines() if line.startswith("nameserver") and line != "nameserver 127.0.0.1"]


async def test_it_holds_no_descriptors_but_its_own(box, value):
    links = ast.literal_eval(await value(box, """
found = {}
for fd in os.listdir('/proc/self/fd'):
    try: found[fd] = os.readlink('/proc/self/fd/' + fd)
    except OSError: pass
found
"""))
    assert not [link for link in links.values() if not link.startswith(("pipe:", "/dev/null", "/proc/", "host:", "socket:"))], links


async def test_seen_from_the_host_its_processes_have_namespaces_and_system_call_filters_of_their_own(boot):
    box = await boot()
    processes = [Path(f"/proc/{pid}") for pid in box._cgroup.processes()]
    assert processes
    for kind in ("net", "ipc", "uts", "mnt"):
        ours = Path(f"/proc/self/ns/{kind}").readlink()
        assert ours not in {(process / "ns" / kind).readlink() for process in processes}, kind
    for process in processes:
        assert "Seccomp:\t2" in (process / "status").read_text(), process
