"""Machines that share nothing but a network: each is a set of Linux namespaces on this one. Needs root.

A machine's processes live in a namespace of processes and end with its first; with the last of them go its
network and its mounts. So nothing has a name here that could be left behind, and the kernel ends all of it
with the process of the tests, however that ends.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from services import wait_until

SUBNET = "198.18.0"
"""Addresses that are kept for trials of networks (RFC 2544); only the machines see them."""

PROGRAMS = ("ip", "unshare", "nsenter", "setpriv", "findmnt")

NAMESPACES = ("--net", "--mount", "--pid", "--uts", "--ipc")

BEGIN = """
set -e
hostname "$0"
ip link set lo up
for place in $(findmnt --real --raw --noheadings --output TARGET); do
    mount -o remount,bind,ro "$place"
done
mount -t tmpfs none /tmp
mount -t tmpfs none /dev/shm
mkdir /tmp/home
echo ready
exec sleep infinity
"""
"""What a machine begins with: what is installed here, to read only, and places of its own to write to."""


def missing() -> str:
    """Say what machines cannot be made for; empty if they can."""
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"`{program}` is not installed: it comes with iproute2 or util-linux"
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        return f"this user may not make namespaces, root may: {tried.stderr.strip()}"
    return ""


class Machine:
    """A machine with a name, an address and a root file system that nobody writes to.

    Written can be to /tmp and /dev/shm, which are its own, as is its home, a folder of /tmp.
    """

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.is_killed = False
        self.address = f"{SUBNET}.{number}"
        program = ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--fork", "--kill-child"]
        self._outer = subprocess.Popen(
            [*program, "--mount-proc", "sh", "-c", BEGIN, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._outer.stdout is not None
        if self._outer.stdout.readline() != "ready\n":
            self._outer.kill()
            raise RuntimeError(f"the machine {name} did not start: {self._outer.communicate()[1]}")
        (self._first,) = psutil.Process(self._outer.pid).children()
        self.pid = self._first.pid
        self.spaces = {kind: Path(f"/proc/{self.pid}/ns/{kind}").readlink() for kind in ("net", "pid")}

    def command(self, *arguments: object, env: Mapping[str, str] | None = None) -> list[str]:
        """Give the command that runs another one on this machine, in its home."""
        env = {"HOME": "/tmp/home", "TMPDIR": "/tmp"} | dict(env or {})
        settings = [f"{name}={value}" for name, value in env.items()]
        enter = ["nsenter", "--target", str(self.pid), *NAMESPACES, "env", *settings]
        return [*enter, "sh", "-c", 'cd "$HOME" && exec "$@"', "sh", *map(str, arguments)]

    def on_network(self, *arguments: object) -> list[str]:
        """Give the command that runs another one on this machine's network, with the files of this one."""
        return ["nsenter", "--target", str(self.pid), "--net", *map(str, arguments)]

    def write(self, name: str, text: str) -> None:
        """Write a file into its home."""
        subprocess.run(
            self.command("tee", name), input=text, text=True, stdout=subprocess.DEVNULL, check=True
        )

    def processes(self) -> Iterator[psutil.Process]:
        """Give its living processes."""
        for entry in Path("/proc").iterdir():
            with suppress(OSError, psutil.NoSuchProcess):
                if entry.name.isdigit() and (entry / "ns" / "pid").readlink() == self.spaces["pid"]:
                    process = psutil.Process(int(entry.name))
                    if process.status() != psutil.STATUS_ZOMBIE:
                        yield process

    def kill(self) -> None:
        """Kill all that was started on it, by SIGKILL; its network stays, and answers for the dead."""
        self.is_killed = True
        wait_until(lambda: not self._kill_all(), f"processes of {self.name} are left")

    def end(self) -> None:
        """End it."""
        self.is_killed = True
        with suppress(psutil.NoSuchProcess):
            self._first.kill()
        self._outer.communicate()
        wait_until(lambda: not any(self.processes()), f"processes of {self.name} are left")

    def _kill_all(self) -> list[psutil.Process]:
        found = [process for process in self.processes() if process.pid != self.pid]
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return found


class Network:
    """Machines on one bridge, which the first of them holds; open it as a context, which ends all."""

    def __init__(self) -> None:
        self.machines: list[Machine] = []
        self._numbers = iter(range(1, 255))

    def __enter__(self) -> "Network":
        self.hub = self._add("hub")
        for command in (
            # With an address of its own, or it would take that of a port, and change it when a port goes.
            ["link", "add", "bridge", "address", "02:00:00:00:00:01", "type", "bridge"],
            ["address", "add", f"{self.hub.address}/24", "dev", "bridge"],
            ["link", "set", "bridge", "up"],
        ):
            self._ip(self.hub, *command)
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines:
            machine.end()

    def add(self, name: str) -> Machine:
        """Start a machine and connect it; its address was nobody's before."""
        machine = self._add(name)
        port = f"port{len(self.machines)}"
        peer = ["peer", "name", "eth0", "netns", machine.pid]
        self._ip(self.hub, "link", "add", port, "type", "veth", *peer)
        self._ip(self.hub, "link", "set", port, "master", "bridge", "up")
        self._ip(machine, "address", "add", f"{machine.address}/24", "dev", "eth0")
        self._ip(machine, "link", "set", "eth0", "up")
        # Programs find their own address by where they would send from.
        self._ip(machine, "route", "add", "default", "via", self.hub.address)
        return machine

    def cut(self, machine: Machine) -> None:
        """Pull a machine's cable: it goes on, and nothing reaches it, nor anybody else from it."""
        self._ip(machine, "link", "set", "eth0", "down")

    def left(self) -> list[str]:
        """Name the processes of this machine that are still in a namespace of one of these."""
        spaces = {space for machine in self.machines for space in machine.spaces.values()}
        found = []
        for process in psutil.process_iter(["name"]):
            for kind in ("net", "pid"):
                with suppress(OSError):
                    if Path(f"/proc/{process.pid}/ns/{kind}").readlink() in spaces:
                        found.append(f"{process.pid} {process.info['name']}")
        return found

    def _add(self, name: str) -> Machine:
        self.machines.append(Machine(name, next(self._numbers)))
        return self.machines[-1]

    def _ip(self, machine: Machine, *arguments: object) -> None:
        subprocess.run(machine.on_network("ip", *arguments), check=True)


def run(command: Sequence[str], **options: Any) -> str:
    """Run a command to its end; gives its standard output. What it says of an error is in the exception."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
