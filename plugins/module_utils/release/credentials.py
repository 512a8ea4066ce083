# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Secrets that a release has as files, which systemd gives to its service (LoadCredential=, systemd.exec(5)).

The unit is the same for all releases of an app and names a directory. systemd makes a credential of each file
in it, ``secret_NAME``, and shows it to the processes of the unit alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from . import places
from .ports import Host
from .request import Release, ReleaseFailure

DIRECTORY = "credentials"  # in a release, as the unit says
VARIABLES = "credentials.environment"  # beside it, the paths for the service
GIVEN = "/run/credentials"  # where systemd puts them, by unit
PREFIX = "secret_"  # of their names there, as the unit says


def write(host: Host, release: Release, name: str, root: str) -> None:
    """Write the secrets of a release into its directory ``root``, if it has them as files."""
    if release.credentials_file is None:
        return
    folder = os.path.join(root, DIRECTORY)
    os.mkdir(folder, 0o700)
    values = _values(release.credentials_file)
    for secret, value in sorted(values.items()):
        places.write(host, os.path.join(folder, secret), value, 0o600, 0)
    lines = [f"{secret}_FILE={path}\n" for secret, path in given(release, name, sorted(values)).items()]
    places.write(host, os.path.join(root, VARIABLES), "".join(lines).encode(), 0o600, 0)


def names(release: Release, name: str) -> list[str]:
    """The secrets that a release has as files."""
    try:
        return sorted(os.listdir(os.path.join(release.releases, name, DIRECTORY)))
    except FileNotFoundError:
        return []


def given(release: Release, name: str, secrets: Sequence[str]) -> dict[str, str]:
    """Where the service of a release finds its secrets, by their names."""
    folder = os.path.join(GIVEN, release.units(name)[1])
    return {secret: os.path.join(folder, PREFIX + secret) for secret in secrets}


def missing(host: Host, release: Release, name: str, process: int) -> list[str]:
    """The secrets that a process of the service does not see as the release has them."""
    found = []
    for secret, path in given(release, name, names(release, name)).items():
        with open(os.path.join(release.releases, name, DIRECTORY, secret), "rb") as file:
            if host.seen(process, path) != file.read():
                found.append(secret)
    return found


def for_hook(release: Release, name: str, settings: Sequence[str]) -> list[str]:
    """The settings of a service for a hook of it: systemd gives the secrets to each unit in another place."""
    own = os.path.join(release.releases, name, VARIABLES)
    kept = [line for line in settings if line != f"EnvironmentFile=-{own}"]
    return kept + [f"Environment={secret}_FILE=%d/{PREFIX}{secret}" for secret in names(release, name)]


def _values(path: str) -> Mapping[str, bytes]:
    """The content of each secret; a list is one as JSON."""
    with open(path, encoding="utf-8") as file:
        text = "".join(line for line in file if not line.startswith("#"))
        try:
            found = dict(json.loads(text))
        except (ValueError, TypeError):
            raise ReleaseFailure(
                f"{path} is not what provisioning writes; provision the host again"
            ) from None
    return {
        name: (value if isinstance(value, str) else json.dumps(value)).encode()
        for name, value in found.items()
    }
