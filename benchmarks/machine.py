"""What a figure is worth nothing without: versions and the machine."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from benchmarks.hosts import Host, run


def describe() -> dict[str, str]:
    """Describe the machine and the controller."""
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = model[1].strip() if model else platform.machine()
    return {
        "machine": f"{os.cpu_count()} cores ({processor}), {memory:.0f} GiB",
        "controller": f"ansible-core {version('ansible-core')}, Python {platform.python_version()}",
        "load generator": _line(run(["dpkg-query", "--show", "--showformat", "wrk ${Version}", "wrk"])),
    }


def describe_host(host: Host, virtual_environment: str) -> dict[str, str]:
    """Describe a host and what serves on it."""
    python = f"{virtual_environment}/bin/python -c"
    return {
        "Debian": host.execute("cat /etc/debian_version").strip(),
        "systemd": host.execute("systemctl --version").split()[1],
        "nginx": host.execute("nginx -v").strip().rpartition("/")[2],
        "Python": host.execute(f"{python} 'import platform; print(platform.python_version())'").strip(),
        **{
            name: host.execute(
                f"{python} 'from importlib.metadata import version; print(version(\"{name}\"))'"
            ).strip()
            for name in ("gunicorn", "flask")
        },
    }


def _line(text: str) -> str:
    return text.strip().splitlines()[0]
