"""Other machines for tests: a stand-in for ssh that starts the command here, and a real sshd on the loopback address."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from epochtop.engine.runs.remote import mirror
from tests.support.engines import HANGING_S

STAND_IN = """#!/bin/sh
# ssh without a network: it notes its process, prints a greeting, and runs the last argument
for last; do :; done
echo $$ >> {folder}/processes
test -e {folder}/down && {{ echo 'ssh: connect to host box port 22: Connection refused' >&2; exit 255; }}
{before}
PATH={folder}/bin:$PATH exec sh -c "$last"
"""
PRIVILEGE_SEPARATION = Path("/run/sshd")
"""Empty folder that an sshd of root insists on."""


class StandIn:
    """A machine that ssh reaches without a network."""

    def __init__(self, folder: Path, before: str = "", python: str = sys.executable) -> None:
        """`before` are lines of shell that run before the agent; `python` is the other machine's python3, without packages."""
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        program = folder / "bin" / "python3"
        program.write_text(f'#!/bin/sh\nexec {python} -I -S "$@"\n')
        program.chmod(0o755)
        self.command = folder / "ssh"
        self.command.write_text(STAND_IN.format(folder=folder, before=before))
        self.command.chmod(0o755)

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let ssh reach this machine, soon again after a drop, and mirror its runs next to its folder."""
        monkeypatch.setenv("EPOCHTOP_SSH", str(self.command))
        monkeypatch.setenv("EPOCHTOP_CACHE", str(self.folder.parent / "cache"))
        monkeypatch.setattr(mirror, "BACKOFF_S", (0.05,))

    @property
    def processes(self) -> list[int]:
        """Ids of the connections that were made."""
        return [int(line) for line in (self.folder / "processes").read_text().split()]

    def unplug(self) -> None:
        """End the connection; no other can be made until :meth:`plug`."""
        (self.folder / "down").touch()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.processes[-1], 9)

    def plug(self) -> None:
        """Accept connections again."""
        (self.folder / "down").unlink()


@contextlib.contextmanager
def running_sshd(folder: Path) -> Iterator[str]:
    """An sshd with keys and configuration of its own on 127.0.0.1. Yields the ssh command that logs in to the host `box`.

    Skips the test where there is none.
    """
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no sshd, ssh or ssh-keygen; install openssh-server")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "authorized_keys").write_bytes((folder / "user.pub").read_bytes())
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    (folder / "ssh_config").write_text(
        f"Host box\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {folder}/user\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {folder}/known_hosts\n StrictHostKeyChecking accept-new\n"
    )
    with _privilege_separation(), open(folder / "sshd.log", "wb") as log:
        daemon = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
        )
        try:
            _wait_for(port, daemon, folder / "sshd.log")
            command = f"ssh -F {folder}/ssh_config"
            _try_login([*command.split(), "-o", "BatchMode=yes", "box"])
            yield command
        finally:
            daemon.terminate()
            daemon.wait()


@contextlib.contextmanager
def _privilege_separation() -> Iterator[None]:
    missing = os.geteuid() == 0 and not PRIVILEGE_SEPARATION.exists()
    if missing:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755)
    try:
        yield
    finally:
        if missing:
            with contextlib.suppress(OSError):
                PRIVILEGE_SEPARATION.rmdir()


def _try_login(command: list[str]) -> None:
    """Skip the test where the account is locked, or its shell finds no Python."""
    program = "python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))'"
    login = subprocess.run(
        [*command, program], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=HANGING_S
    )
    if login.returncode != 0:
        pytest.skip(f"no login with Python 3.9 through sshd here: {login.stderr.strip()[-300:]}")


def _wait_for(port: int, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + HANGING_S
    while True:
        if daemon.poll() is not None:
            pytest.skip(f"sshd does not start: {log.read_text().strip()[-300:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)
