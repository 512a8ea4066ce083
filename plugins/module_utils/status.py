# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How one app of a host is: its release, whether that answers, the certificate that visitors are shown."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Any

from . import acme, key_pairs, liveness
from .release import gate, ids, places
from .release.ports import Host
from .release.request import Release

LIMIT = 5.0
"""Seconds that the app may take for its answer."""


def look(host: Host, release: Release, site: Mapping[str, Any]) -> dict[str, Any]:
    """Tell how an app is. It only asks, and takes no lock.

    Args:
        host: the host.
        release: what the plan says of the app's releases.
        site: the ``domains``, ``https_port`` and ``fullchain`` of its site.
    """
    return {**_release(host, release), **_certificates(site)}


def _release(host: Host, release: Release) -> dict[str, Any]:
    name = places.pointer(release, "current")
    if name is not None:
        os.listdir(release.releases)  # who may not read it could not ask the app either
    else:
        nothing = dict.fromkeys(("release", "age", "service", "health", "restarted"))
        return {**nothing, "healthy": False}
    answer = host.probe(
        os.path.join(release.releases, name, "gunicorn.sock"), gate.request(release), LIMIT, lambda: False
    )
    return {
        "release": name,
        "age": round(max(host.now() - ids.moment(name), 0)) if ids.is_id(name) else None,
        "service": host.watch(release.units(name)[1]).active,
        "health": answer.text,
        "healthy": answer.status == release.health.status,
        "restarted": _restarted(host, release.name, name),
    }


def _restarted(host: Host, app: str, name: str) -> int | None:
    """Seconds since the host has restarted a release because it did not answer; None when it has not."""
    last = liveness.State(liveness.STATE, {app}).of(app, name)["last"]
    return round(max(host.now() - last, 0)) if last else None


def _certificates(site: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown for each domain: the certificates in PEM, each once, and in words where there is none."""
    found: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for domain in site["domains"]:
        try:
            # A wildcard is asked for by a name that only it has.
            shown = acme.shown(site["https_port"], domain.replace("*", "flaskworks-status", 1))
        except OSError as error:
            missing[domain] = f"the handshake fails ({error.strerror or error})"
            continue
        if shown:
            found.setdefault(ssl.DER_cert_to_PEM_cert(shown), []).append(domain)
        else:
            missing[domain] = f"nobody listens on port {site['https_port']}"
    installed = key_pairs.leaf_in(site["fullchain"])
    return {
        "certificates": [{"pem": pem, "domains": domains} for pem, domains in found.items()],
        "missing": missing,
        "installed": not installed or ssl.DER_cert_to_PEM_cert(installed) in found,
    }
