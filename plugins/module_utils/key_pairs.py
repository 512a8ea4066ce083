# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Key pairs on a host: look at them, make private keys, switch to a new pair at once.

``/etc/flask/tls/<name>`` is a symlink to ``/etc/flask/tls/.pairs/<name>-<digest>/``, which holds
``fullchain.pem`` and ``privkey.pem`` and never changes. A new pair is completed beside the old one
and made live by rename(2), so a reader meets the old pair or the new one and never a mixture, and a
run that is killed leaves the old pair, or none.

Private keys of self-signed certificates are made here and never leave the host. Between the two
steps they wait as ``.pairs/.pending-<name>.key``; a run that was interrupted there is continued by
the next one with the same key.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import ssl
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .pending_apply import STATE_DIRECTORY, PendingApply, run_command

CHAIN = "fullchain.pem"
KEY = "privkey.pem"
STORE = ".pairs"

OPTIONS: dict[str, Any] = {
    "certificates": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "domains": {"type": "list", "elements": "str", "required": True},
            "provider": {
                "type": "str",
                "choices": ["self_signed", "provided", "acme"],
                "default": "self_signed",
            },
            "directory": {"type": "path", "required": True},
            "fullchain": {"type": "path"},
            "privkey": {"type": "path", "no_log": False},
            "days": {"type": "int", "default": 90},
            "renew_before": {"type": "int", "default": 30},
            "provided": {
                "type": "dict",
                "options": {"fullchain": {"type": "str"}, "privkey": {"type": "str", "no_log": True}},
            },
            "acme": {"type": "dict"},
        },
    },
    "authority": {"type": "path", "required": True},
    "permitted_domains": {"type": "list", "elements": "str", "default": []},
    "apply": {"type": "list", "elements": "list", "default": []},
}


class PairError(Exception):
    """A sentence for the operator: what is wrong on the host, and the way out."""


@dataclass(frozen=True)
class Pair:
    """Where the key pair of one certificate lives."""

    name: str
    directory: str

    @property
    def parent(self) -> str:
        return os.path.dirname(self.directory)

    @property
    def store(self) -> str:
        return os.path.join(self.parent, STORE)

    @property
    def pending_key(self) -> str:
        return os.path.join(self.store, f".pending-{self.name}.key")

    def path(self, fullchain: str) -> str:
        """The directory of the pair with this chain; its name is the leaf's own digest."""
        return os.path.join(self.store, f"{self.name}-{hashlib.sha256(leaf(fullchain)).hexdigest()[:10]}")


@dataclass(frozen=True)
class Material:
    """What a pair is to become: a chain and, where it was provided, the key that belongs to it."""

    pair: Pair
    fullchain: str
    privkey: str | None = None


def leaf(fullchain: str) -> bytes:
    """Return the first certificate of a chain in PEM, as DER."""
    first = fullchain[: fullchain.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)] + "\n"
    return ssl.PEM_cert_to_DER_cert(first[first.index(ssl.PEM_HEADER) :])


def leaf_in(path: str) -> bytes:
    """Return the first certificate of a file in PEM, as DER; nothing when there is none that can be read."""
    try:
        with open(path, encoding="ascii") as file:
            return leaf(file.read())
    except (OSError, ValueError):
        return b""


def inspect(pair: Pair, owner: int = 0) -> dict[str, Any]:
    """What there is of a pair, without changing anything: its public chain, and in words what is wrong.

    ``obstacle`` forbids an installation, ``fault`` calls for a new pair, ``exposures`` for other permissions.
    """
    found: dict[str, Any] = {"fullchain": "", "fault": "", "obstacle": _obstacle(pair), "exposures": []}
    if found["obstacle"]:
        return found
    if not os.path.lexists(pair.directory):
        return found | {"fault": "is missing"}
    chain, key = os.path.join(pair.directory, CHAIN), os.path.join(pair.directory, KEY)
    try:
        with open(chain, encoding="ascii") as file:
            found["fullchain"] = file.read()
    except (OSError, UnicodeDecodeError) as error:
        return found | {"fault": f"has no readable {CHAIN} ({_reason(error)})"}
    found["fault"] = _mismatch(chain, key)
    found["exposures"] = [words for _path, words, _mode in _exposures(pair, owner)]
    return found


def prepare(pairs: Iterable[Pair], openssl: str = "openssl") -> dict[str, str]:
    """Make a private key for each pair and return the certificate requests, by name."""
    pairs = list(pairs)
    with _locked(pairs):
        return {pair.name: _request(pair, openssl) for pair in pairs}


def install(materials: Iterable[Material]) -> tuple[list[str], dict[str, str]]:
    """Complete every pair and then switch to all of them.

    Returns the names that were switched, and for each the pair that was live before.
    Nothing is switched unless every pair is complete and its key matches.
    """
    materials = list(materials)
    with _locked([material.pair for material in materials]):
        for material in materials:
            if obstacle := _obstacle(material.pair):
                raise PairError(f"{material.pair.name}: {obstacle}")
        targets = [(material.pair, _complete(material)) for material in materials]
        previous = {pair.name: _live(pair) for pair, _target in targets}
        for pair, target in targets:
            _switch(pair, target)
        for parent in {pair.parent for pair, _target in targets}:
            _sync(parent)
    return [pair.name for pair, _target in targets], previous


def protect(pairs: Iterable[Pair], owner: int = 0) -> None:
    """Put owners and modes right: keys 0600, chains 0644, nothing on the way writable by others."""
    for pair in pairs:
        for path, _words, mode in _exposures(pair, owner):
            os.chown(path, owner, -1)
            os.chmod(path, mode)


def prune(pairs: Iterable[Pair], previous: dict[str, str]) -> list[str]:
    """Remove the pairs that are neither live nor were so before, and whatever killed runs left."""
    removed = []
    pairs = list(pairs)
    with _locked(pairs):
        for pair in pairs:
            keep = {os.path.basename(_live(pair)), os.path.basename(previous.get(pair.name, ""))}
            own = re.compile(re.escape(pair.name) + r"-[0-9a-f]{10}")
            for entry in os.listdir(pair.store):
                if (own.fullmatch(entry) and entry not in keep) or entry == f".new-{pair.name}":
                    shutil.rmtree(os.path.join(pair.store, entry))
                    removed.append(entry)
    return sorted(removed)


@contextlib.contextmanager
def _locked(pairs: list[Pair]) -> Iterator[None]:
    """One run at a time per store, made when missing; sorted, so that two runs cannot block each other."""
    with contextlib.ExitStack() as stack:
        for store in sorted({pair.store for pair in pairs}):
            _make_directory(store)
            lock = stack.enter_context(open(os.path.join(store, ".lock"), "a", encoding="ascii"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make_directory(path: str) -> None:
    """Make a directory and its parents with mode 0755, whatever the umask: others have files there too."""
    if not os.path.isdir(path):
        _make_directory(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            os.chmod(path, 0o755)


def _obstacle(pair: Pair) -> str:
    if os.path.lexists(pair.directory) and not os.path.islink(pair.directory):
        return f"{pair.directory} should be a symlink to the live pair; move it out of the way and run again"
    return ""


def _live(pair: Pair) -> str:
    return os.path.join(pair.parent, os.readlink(pair.directory)) if os.path.islink(pair.directory) else ""


def _mismatch(chain: str, key: str) -> str:
    """Why a TLS server could not use the two files together, or nothing.

    The standard library asks the same OpenSSL function as nginx does, and needs no process for it.
    """
    try:
        os.stat(key)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "has a private key that does not belong to its certificate"
        return f"cannot be loaded ({error.reason or 'no PEM, or a key with a passphrase'})"
    except (OSError, ValueError) as error:
        return f"has no readable {KEY} ({_reason(error)})"
    return ""


def _exposures(pair: Pair, owner: int) -> Iterator[tuple[str, str, int]]:
    """Each path of a pair with a wrong owner or mode: the path, words for it, the mode it should have."""
    files = (os.path.join(pair.directory, KEY), 0o600), (os.path.join(pair.directory, CHAIN), 0o644)
    for path, mode in files:
        if os.path.exists(path):
            status = os.stat(path)
            if status.st_uid != owner or stat.S_IMODE(status.st_mode) != mode:
                yield path, f"{path} was {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}", mode
    for path in (pair.parent, pair.store, os.path.realpath(pair.directory)):
        if os.path.isdir(path):
            status = os.stat(path)
            if status.st_uid != owner or status.st_mode & 0o022:
                yield path, f"{path} was {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid}", 0o755


def _request(pair: Pair, openssl: str) -> str:
    """A certificate request for the key that waits for this pair, or for a new one."""
    # No setting of the host's own openssl.cnf may slip in; names come from the plan, not from the request.
    base = [openssl, "req", "-new", "-sha256", "-config", os.devnull, "-subj", f"/CN={pair.name[:64]}"]
    if os.path.exists(pair.pending_key):
        answer = _run([*base, "-key", pair.pending_key, "-passin", "pass:"])
        if answer.returncode == 0:
            return answer.stdout
        os.unlink(pair.pending_key)  # half written by a killed run
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    answer = _run([*base, *curve, "-keyout", pair.pending_key])
    if answer.returncode != 0:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(pair.pending_key)
        raise PairError(f"{pair.name}: openssl could not make a private key: {answer.stderr.strip()}")
    return answer.stdout


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # umask: the key has its final mode before the first byte is in it
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, umask=0o077
        )
    except FileNotFoundError:
        raise PairError(
            f"{command[0]} is not installed on this host, it makes the private keys; role tls installs it"
        ) from None


def _complete(material: Material) -> str:
    """Write the whole pair under its final name and return that directory."""
    pair = material.pair
    target = pair.path(material.fullchain)
    if os.path.isdir(target):
        # The same certificate again: each file is replaced in one step, the key only where it is wrong.
        _replace(os.path.join(target, CHAIN), material.fullchain, 0o644)
        if material.privkey is not None and _mismatch(os.path.join(target, CHAIN), os.path.join(target, KEY)):
            _replace(os.path.join(target, KEY), material.privkey, 0o600)
        _check(pair, target)
        return target
    new = os.path.join(pair.store, f".new-{pair.name}")
    if os.path.isdir(new):
        shutil.rmtree(new)  # a killed run's; nobody else works here, we hold the lock
    os.mkdir(new, 0o700)
    _write(os.path.join(new, CHAIN), material.fullchain, 0o644)
    if material.privkey is not None:
        _write(os.path.join(new, KEY), material.privkey, 0o600)
    else:
        _take_key(pair, new)
    _check(pair, new)
    os.chmod(new, 0o755)  # the chain in it is public, the key beside it is 0600
    _sync(new)
    os.rename(new, target)
    _sync(pair.store)
    return target


def _take_key(pair: Pair, new: str) -> None:
    """Move the waiting key into the new pair; if another run was faster, share the key it installed."""
    chain, key = os.path.join(new, CHAIN), os.path.join(new, KEY)
    if not _mismatch(chain, pair.pending_key):
        os.rename(pair.pending_key, key)
        _sync(key)
        return
    for entry in sorted(os.listdir(pair.store)):
        other = os.path.join(pair.store, entry, KEY)
        if entry.startswith(f"{pair.name}-") and not _mismatch(chain, other):
            os.link(other, key)
            return
    raise PairError(
        f"{pair.name}: the private key that this certificate was issued for is gone from the host; run "
        "the play again"
    )


def _check(pair: Pair, directory: str) -> None:
    if fault := _mismatch(os.path.join(directory, CHAIN), os.path.join(directory, KEY)):
        raise PairError(f"{pair.name}: the new pair {fault}; the old one stays live")


def _switch(pair: Pair, target: str) -> None:
    link = os.path.join(pair.store, f".link-{pair.name}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(link)
    os.symlink(os.path.relpath(target, pair.parent), link)
    os.replace(link, pair.directory)


def _write(path: str, content: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: str, content: str, mode: int) -> None:
    fresh = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    _write(fresh, content, mode)
    os.replace(fresh, path)
    _sync(os.path.dirname(path))


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def pending(pairs: Iterable[Pair]) -> PendingApply:
    """The marker that says that the system was not told of new pairs yet."""
    places = "\n".join(sorted({pair.parent for pair in pairs}))
    digest = hashlib.sha256(places.encode()).hexdigest()[:10]
    return PendingApply(os.path.join(STATE_DIRECTORY, f"certificates-{digest}.pending"))


def apply(owed: PendingApply, commands: Iterable[Sequence[str]]) -> None:
    """Tell the system, then forget that it was owed; a failure leaves that to the next run."""
    for command in commands:
        code, output = run_command(command)
        if code:
            raise PairError(
                f"the certificates are in place, but '{shlex.join(command)}' failed (exit code {code}); "
                f"put that right and run again, the command is repeated:\n{output}"
            )
    owed.clear()
