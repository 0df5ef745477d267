"""The command line, as a person types it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "ephemeral_cli"]


def ephemeral(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, **variables}, timeout=120, check=False)


def test_help_names_every_command_and_where_to_begin() -> None:
    done = ephemeral("--help", COLUMNS="120")
    assert done.returncode == 0
    for word in ("setup", "doctor", "up", "demo", "replay", "settings", "OPENAI_BASE_URL"):
        assert word in done.stdout


def test_doctor_tells_a_machine_that_is_not_set_up_what_to_type(tmp_path: Path) -> None:
    done = ephemeral("doctor", "--json", EPHEMERAL_STATE=str(tmp_path), EPHEMERAL_K2_API_KEY="")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["usable"] is False
    runsc = next(finding for finding in report["findings"] if finding["what"] == "runsc")
    assert (runsc["state"], runsc["fix"]) == ("missing", "ephemeral setup")
    assert {"kernel", "cgroups", "root filesystem", "base environment", "docker", "uv", "dashboard", "disk", "provider", "K2"} <= {f["what"] for f in report["findings"]}


def test_up_without_setup_says_what_to_type(tmp_path: Path) -> None:
    done = ephemeral("up", EPHEMERAL_STATE=str(tmp_path), EPHEMERAL_STORE=str(tmp_path / "store"))
    assert done.returncode == 1
    assert "next: ephemeral setup" in done.stderr
    assert "Traceback" not in done.stderr


def test_setup_check_says_what_is_missing_and_changes_nothing(tmp_path: Path) -> None:
    done = ephemeral("setup", "--check", EPHEMERAL_STATE=str(tmp_path / "state"), EPHEMERAL_STORE=str(tmp_path / "store"))
    assert done.returncode == 1
    assert "runsc is not set up" in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_setting_that_cannot_be_read_is_named() -> None:
    done = ephemeral("up", EPHEMERAL_PROXY_PORT="eight", EPHEMERAL_RUNTIME="docker", EPHEMERAL_HOST="")
    assert done.returncode == 2
    assert "EPHEMERAL_PROXY_PORT is 'eight'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_one_sentence_that_names_the_setting(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = ephemeral("up", EPHEMERAL_STATE=str(tmp_path), EPHEMERAL_RUNTIME="docker", EPHEMERAL_SANDBOXD_PORT=str(other.getsockname()[1]))
    assert done.returncode == 2
    assert "wanted by sandboxd, is taken" in done.stderr
    assert "EPHEMERAL_SANDBOXD_PORT" in done.stderr


def test_replaying_a_file_that_is_not_there_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    done = ephemeral("replay", str(tmp_path / "none.jsonl"))
    assert done.returncode == 2
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_lists_all_and_shows_no_secret() -> None:
    done = ephemeral("settings", EPHEMERAL_K2_API_KEY="sk-secret-value", COLUMNS="200")
    assert "EPHEMERAL_UPSTREAM" in done.stdout
    assert "sk-secret-value" not in done.stdout
