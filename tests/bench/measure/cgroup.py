"""A control group with a container's limits, by either version of the kernel's interface."""

import os
import time
from contextlib import suppress
from pathlib import Path

from suite.base import Failed

ROOT = Path("/sys/fs/cgroup")
PERIOD = 100_000


class Cgroup:
    """For one process; `memory` in bytes, `cpus` of processors."""

    def __init__(self, name, memory, cpus):
        self.memory = memory
        quota = int(cpus * PERIOD)
        if (ROOT / "cgroup.controllers").exists():
            self.directories = [self.make(ROOT / name)]
            self.accounting = self.directories[0]
            settings = [("memory.max", memory), ("memory.swap.max", 0), ("cpu.max", f"{quota} {PERIOD}")]
        else:
            self.directories = [self.make(ROOT / controller / name) for controller in ("memory", "cpu")]
            self.accounting = self.directories[0]
            settings = [("memory.limit_in_bytes", memory), ("cpu.cfs_period_us", PERIOD), ("cpu.cfs_quota_us", quota)]
        for file, value in settings:
            self.write(file, value)

    @staticmethod
    def make(directory):
        if os.geteuid() != 0:
            raise Failed("cannot limit the webhook's memory: be root")
        with suppress(OSError):
            # Version 2 hands controllers down only where it is told to.
            (directory.parent / "cgroup.subtree_control").write_text("+memory +cpu")
        directory.mkdir()
        return directory

    def write(self, file, value):
        for directory in self.directories:
            if (directory / file).exists():
                (directory / file).write_text(str(value))
                return
        if file != "memory.swap.max":
            raise Failed(f"the kernel has no {file} in {self.directories[0]}")

    def enter(self):
        """For the process itself, between fork and exec."""
        for directory in self.directories:
            (directory / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self):
        """The most bytes that were ever charged, page cache included; `None` where the kernel does not say."""
        for file in ("memory.peak", "memory.max_usage_in_bytes"):
            if (self.accounting / file).exists():
                return int((self.accounting / file).read_text())
        return None

    def kills(self):
        """How often the kernel ended a process for lack of memory."""
        for file in ("memory.events", "memory.oom_control"):
            if (self.accounting / file).exists():
                fields = dict(line.split() for line in (self.accounting / file).read_text().splitlines())
                if "oom_kill" in fields:
                    return int(fields["oom_kill"])
        return 0

    def remove(self):
        for directory in self.directories:
            for _ in range(50):
                with suppress(OSError):
                    directory.rmdir()
                    break
                # Until its last process is gone.
                time.sleep(0.1)
