"""`ephemeral host init`: what it would write, judged by the programs that will read it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ephemeral_cli import doctor
from ephemeral_cli.errors import CommandError
from ephemeral_cli.host import certifying, files
from ephemeral_cli.host.files import Wanted

WANTED = Wanted(8790, ("203.0.113.0/24", "2001:db8::/32"), ssh_ports=(22, 2222))


def checked(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        pytest.fail(f"{command[0]} is missing: install the Debian package that has it (iproute2, nftables, systemd)")
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)


def ephemeral(*arguments: str) -> subprocess.CompletedProcess[str]:
    return checked(sys.executable, "-m", "ephemeral_cli", *arguments)


@pytest.fixture
def units(tmp_path: Path) -> dict[str, Path]:
    """The units on disk, with a program that exists on this machine in place of ours."""
    found = {}
    for text in [*files.system_files(WANTED), *files.firewall_files(WANTED)]:
        if text.path.parent == files.UNITS:
            found[text.path.name] = tmp_path / text.path.name
            found[text.path.name].write_text(text.content.replace(files.PYTHON, "/bin/true").replace(files.EPHEMERAL, "/bin/true").replace("/usr/sbin/nft", "/bin/true"))
    return found


def test_systemd_understands_every_unit(units: dict[str, Path]):
    assert len(units) == 4
    done = checked("systemd-analyze", "verify", "--man=no", *map(str, units.values()))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(("unit", "threshold"), [("ephemeral-sandboxd", 65), ("ephemeral-certificates", 20), ("ephemeral-firewall", 75)])
def test_the_units_are_exposed_no_more_than_they_have_to_be(units: dict[str, Path], unit: str, threshold: int):
    done = checked("systemd-analyze", "security", "--offline=yes", f"--threshold={threshold}", "--no-pager", str(units[f"{unit}.service"]))
    assert done.returncode == 0, done.stdout[-200:]


def test_nftables_understands_the_firewall_and_loads_it_twice(tmp_path: Path):
    rules = tmp_path / "firewall.nft"
    rules.write_text(files.firewall_files(WANTED)[0].content)
    # In a network namespace of its own: the machine's rules are not touched.
    done = checked("unshare", "--net", "sh", "-c", f"nft -f {rules} && nft -f {rules} && nft list table inet ephemeral")
    assert done.returncode == 0, done.stderr
    listed = done.stdout
    assert "policy drop" in listed
    assert "tcp dport { 22, 2222 } accept" in listed
    assert "tcp dport 8790 ip saddr 203.0.113.0/24 accept" in listed
    assert "tcp dport 8790 ip6 saddr 2001:db8::/32 accept" in listed
    assert listed.count("tcp dport 8790 accept") == 0, "nobody else"


def test_the_cloud_init_file_is_one_and_runs_the_same_command():
    done = ephemeral("host", "cloud-init", "--name", "sandbox.example.com", "--allow-from", "203.0.113.7", "--package", "./it's a wheel.whl")
    assert done.stdout.startswith("#cloud-config\n")
    data = yaml.safe_load(done.stdout)
    assert set(data) == {"package_update", "packages", "write_files", "runcmd"}
    (script,) = data["write_files"]
    assert script["path"] == str(files.BOOTSTRAP)
    assert data["runcmd"] == [["sh", script["path"], "host", "init", "--yes", "--name", "sandbox.example.com", "--allow-from", "203.0.113.7/32", "--port", "8790"]]
    assert checked("sh", "-n", given=script["content"]).returncode == 0
    assert "'./it'\"'\"'s a wheel.whl'" in script["content"]
    assert ephemeral("host", "init", "--print-cloud-init", "--name", "sandbox.example.com", "--allow-from", "203.0.113.7", "--package", "./it's a wheel.whl").stdout == done.stdout


def test_the_shell_script_for_a_running_server_is_one():
    done = ephemeral("host", "cloud-init", "--shell", "--address", "203.0.113.7")
    assert checked("sh", "-n", given=done.stdout).returncode == 0
    assert "exec \"$home/venv/bin/ephemeral\" host init --yes --address 203.0.113.7 --port 8790" in done.stdout


def test_a_dry_run_shows_every_file_and_command_and_changes_nothing():
    places = [Path("/etc/ephemeral"), files.BOOTSTRAP, Path("/root/laptop.invite")]
    before = [place.exists() for place in places]
    done = ephemeral("host", "init", "--dry-run", "--name", "sandbox.example.com", "--address", "203.0.113.7", "--client", "laptop")
    assert done.returncode == 0, done.stderr
    for word in (
        "apt-get install", "unattended-upgrades", "ephemeral-sandboxd.service", "ProtectSystem=strict", "vm.max_map_count",
        "host certify --name sandbox.example.com --name 203.0.113.7 --port 8790", "systemctl enable", "ephemeral setup", "/root/laptop.invite",
    ):  # fmt: skip
        assert word in done.stdout, word
    assert [place.exists() for place in places] == before


def test_no_firewall_leaves_the_firewall_alone():
    shown = ephemeral("host", "init", "--dry-run", "--name", "a.example", "--no-firewall").stdout
    assert "nft" not in shown
    assert "firewall" not in shown


def test_the_port_that_this_session_came_by_stays_open(monkeypatch: pytest.MonkeyPatch):
    from ephemeral_cli.host import preparing

    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.9 50000 203.0.113.7 2022")
    assert 2022 in preparing.ssh_ports()
    monkeypatch.delenv("SSH_CONNECTION")
    assert preparing.ssh_ports()


def test_a_machine_that_systemd_does_not_run_is_refused_with_what_to_do():
    # Where systemd does run, this hides it: nothing here may ever prepare the machine that tests run on.
    hidden = 'mount -t tmpfs none /run && test ! -e /run/systemd && exec "$@"'
    done = checked("unshare", "--mount", "sh", "-c", hidden, "sh", sys.executable, "-m", "ephemeral_cli", "host", "init", "--yes", "--name", "a.example")
    assert done.returncode == 2
    assert "ephemeral host init --dry-run" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("network", ["", "x", "203.0.113.0/33", "any"])
def test_a_network_that_is_none_is_refused(network: str):
    with pytest.raises(CommandError, match="neither an address nor a network"):
        files.networks([network])


def test_the_commands_say_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPHEMERAL_STATE", str(tmp_path))
    assert "is no host" in ephemeral("host", "status").stdout
    certifying.certify(tmp_path, ["a.example"])
    token = ephemeral("token", "create", "laptop", "--days", "3").stdout.strip()
    assert token.startswith("eph_")
    rotated = ephemeral("token", "rotate", "laptop", "--grace", "1h").stdout.strip()
    assert rotated.startswith("eph_")
    assert rotated != token
    listed = ephemeral("host", "status").stdout
    assert "https://a.example:8790" in listed
    assert listed.count("laptop") == 2
    assert token not in listed
    assert rotated not in listed
    assert ephemeral("token", "revoke", "laptop").stdout.startswith("2 token(s)")
    bad = ephemeral("token", "rotate", "laptop", "--grace", "soon")
    assert (bad.returncode, "Traceback" in bad.stderr) == (2, False)
    assert next(finding for finding in doctor.examine() if finding.what == "certificates").state == "ok"
