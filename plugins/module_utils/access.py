# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change how a host is reached, sshd and the packet filter, so that nobody is locked out.

The order of events is the promise:

1. *check*: sshd and nft accept the new files, and sshd would let in who is connected now;
2. *arm*: what is there now is kept, and a timer of systemd puts it back, whatever becomes of this process,
   of the connection and of the controller;
3. *apply*: the files are exchanged, the ruleset is loaded, sshd reloads;
4. the controller proves that a connection made from scratch still gets in;
5. *confirm*: only then the timer is taken away.

A host that restarts between 2 and 5 puts everything back before its network is up: its unit
``flaskworks-access.service`` looks for what is armed. Nothing here knows Ansible.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import glob
import grp
import hashlib
import os
import pwd
import re
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import transaction
from .pending_apply import STATE_DIRECTORY, run_command

TABLE = "flaskworks"
"""The table of family inet that is ours; no rule of any other one is touched."""

TIMER = "flaskworks-access-revert"
STATE = f"{STATE_DIRECTORY}/access"
LOCK = "/run/flaskworks-access.lock"
COMMAND_PATIENCE = 30.0
"""Seconds for one command. All take well under one."""

_SSHD_CONFIG = "/etc/ssh/sshd_config"
_DROP_INS = "/etc/ssh/sshd_config.d"
_INCLUDED = re.compile(rf"^\s*Include\s+.*{re.escape(_DROP_INS)}/\*\.conf", re.MULTILINE | re.IGNORECASE)

Settings = Mapping[str, tuple[str, ...]]
"""What sshd says of a connection, by keyword in small letters."""


class AccessError(Exception):
    """A sentence for the operator: what would happen or happened, and the way out."""


@dataclass(frozen=True)
class Session:
    """The ssh connection by which this process was started.

    Attributes:
        user: Who has logged in.
        client: His address.
        address: The host's address that he has reached.
        port: The host's port that he has reached.
        groups: The user's groups.
    """

    user: str
    client: str
    address: str
    port: int
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """What is to be.

    Attributes:
        files: The drop-in of sshd and the ruleset, to install or to remove.
        firewall: Path of the ruleset that is to be loaded; without one, our table is removed.
        sshd: Whether a drop-in of sshd is among the files.
        patience: Seconds after which everything is put back, unless it was confirmed.
        password: Whether the controller has a password for this connection.
    """

    files: transaction.Request
    firewall: str = ""
    sshd: bool = True
    patience: int = 60
    password: bool = False


@dataclass
class Outcome:
    """What was done.

    Attributes:
        changed: Whether anything was (or would be) changed.
        token: What confirms the change; empty when there is nothing to confirm.
        key_needed: Nothing was done yet: password login ends, so the controller has to show that a key works.
        diff: As Ansible shows it.
    """

    changed: bool = False
    token: str = ""
    key_needed: bool = False
    diff: list[dict[str, str]] = field(default_factory=list)


class Host:
    """The real host. Tests put another one in its place."""

    state = STATE

    def run(self, *command: str) -> tuple[int, str]:
        """As `run_command`."""
        return run_command(command, COMMAND_PATIENCE)

    def transact(self, request: transaction.Request, check_mode: bool) -> transaction.Outcome:
        return transaction.execute(request, check_mode=check_mode)

    def session(self) -> Session | None:
        """By which ssh connection this process was started; none when it came another way."""
        return session()

    def sshd_settings(self, overlay: Mapping[str, str | None], whom: Session | None) -> tuple[int, str]:
        """As `sshd_settings`."""
        return sshd_settings(overlay, whom, lambda argv: self.run(*argv))

    def has_sshd(self) -> bool:
        return os.path.exists("/usr/sbin/sshd")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others out; the timer, too."""
        with open(LOCK, "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def put(host: Host, request: Request, check_mode: bool = False) -> Outcome:
    """Bring the change about and leave it armed, to be confirmed or put back.

    Raises:
        AccessError: when it is refused or fails; everything is as before then.
        transaction.TransactionError: when a file is refused; everything is as before then.
    """
    with contextlib.nullcontext() if check_mode else host.alone():
        return _Change(host, request).carry_out(check_mode)


def confirm(host: Host, token: str) -> None:
    """Keep what was put.

    Raises:
        AccessError: when it was put back already.
    """
    with host.alone():
        if not token or _armed(host) != token:
            raise AccessError(
                "the change was put back before a new connection was proven, because that took too long; run "
                "again, with a larger hardening_revert_after when the connection is slow"
            )
        # Without its script the timer does nothing, so this is the moment at which the change stays.
        os.unlink(_script(host))
        _disarm(host)
        _note_ruleset(host)


def revert(host: Host, token: str) -> bool:
    """Put everything back now. Returns whether that was still to do."""
    with host.alone():
        if _armed(host) != token:
            return False
        _put_back(host)
        return True


class _Change:
    """One change, and what it knows of the host."""

    def __init__(self, host: Host, request: Request) -> None:
        self.host, self.request = host, request
        self.session: Session | None = None
        self.settings: Settings = {}

    def carry_out(self, check_mode: bool) -> Outcome:
        host, request = self.host, self.request
        left = _armed(host)
        if left and not check_mode:
            # Of a run that died, or of one that is still at it and will be told so.
            _put_back(host)
        foreseen = host.transact(request.files, True)
        if not (foreseen.changed or left or self._stale()):
            return Outcome()
        if request.sshd and (host.has_sshd() or not check_mode):
            self._check_sshd()
            if self._key_needed():
                return Outcome(key_needed=True)
        if check_mode:
            return Outcome(changed=True, diff=foreseen.diff)
        token = self._arm()
        try:
            outcome = host.transact(request.files, False)
            self._apply()
        except BaseException:
            _put_back(host)
            raise
        return Outcome(changed=True, token=token, diff=outcome.diff)

    def _stale(self) -> bool:
        """Whether another ruleset is loaded than the one that was applied last."""
        listed = _listed(self.host)
        if not self.request.firewall:
            return listed is not None
        return listed is None or _digest(listed) != _noted(self.host)

    def _overlay(self) -> dict[str, str | None]:
        files = self.request.files
        targets = transaction.expand(files.elements, files.rules)
        return {
            **dict.fromkeys(files.absent),
            **{target.path: content for target, content in zip(targets, files.contents, strict=True)},
        }

    def _check_sshd(self) -> None:
        """Refuse what sshd does not understand, and what locks out whoever is connected."""
        self.session = self.host.session()
        code, said = self.host.sshd_settings(self._overlay(), self.session)
        if code:
            raise AccessError(
                f"sshd refuses the new settings (exit code {code}); nothing was changed, correct "
                f"hardening_ssh_* and run again:\n{said}"
            )
        self.settings = parse_settings(said)
        if self.session:
            problems = refusals(self.settings, self.session)
            if problems:
                raise AccessError(f"{'; '.join(problems)}. Nothing was changed")

    def _key_needed(self) -> bool:
        return bool(self.session) and self.request.password and not allows_password(self.settings)

    def _arm(self) -> str:
        """Keep what is there, and have it put back in time."""
        host, files = self.host, self.request.files
        os.makedirs(host.state, mode=0o700, exist_ok=True)
        lines = ["# Puts back how this host was reached before a change that was not confirmed."]
        listed = _listed(host)
        if listed is None:
            lines.append(f"nft delete table inet {TABLE} 2>/dev/null")
        else:
            before = os.path.join(host.state, "before.nft")
            _write(before, f"table inet {TABLE}\ndelete table inet {TABLE}\n{listed}\n")
            lines.append(f"nft -f {shlex.quote(before)}")
        targets = transaction.expand(files.elements, files.rules)
        for number, path in enumerate([*(target.path for target in targets), *files.absent]):
            if os.path.lexists(path):
                kept = os.path.join(host.state, f"file-{number}")
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(kept)
                shutil.copy2(path, kept, follow_symlinks=False)
                staged = shlex.quote(os.path.join(os.path.dirname(path), ".flaskworks-revert~"))
                lines.append(f"cp -a {shlex.quote(kept)} {staged} && mv -fT {staged} {shlex.quote(path)}")
            else:
                lines.append(f"rm -f {shlex.quote(path)}")
        # At boot sshd does not run yet, and waiting for a job would wait for ever.
        lines.append("systemctl --no-block try-reload-or-restart ssh.service")
        token = secrets.token_hex(8)
        script = _script(host)
        lines += [f"rm -f {shlex.quote(script)}", f"# {token}"]
        _write(script, "\n".join(lines) + "\n")
        host.run("systemctl", "stop", f"{TIMER}.timer")
        look = f"test ! -e {shlex.quote(script)} || sh {shlex.quote(script)}"
        code, said = host.run(
            *("systemd-run", "--quiet", "--collect", f"--unit={TIMER}"),
            *(f"--on-active={self.request.patience}", "--timer-property=AccuracySec=100ms"),
            *("flock", LOCK, "sh", "-c", look),
        )
        if code:
            os.unlink(script)
            raise AccessError(
                "systemd-run does not work on this host, so nobody would put back a change that locks out; "
                f"nothing was changed: {said}"
            )
        return token

    def _apply(self) -> None:
        host, firewall = self.host, self.request.firewall
        if firewall:
            self._do("nft", "-f", firewall)
        elif _listed(host) is not None:
            self._do("nft", "delete", "table", "inet", TABLE)
        if self.request.sshd or host.has_sshd():
            self._do("systemctl", "try-reload-or-restart", "ssh.service")

    def _do(self, *command: str) -> None:
        code, said = self.host.run(*command)
        if code:
            raise AccessError(
                f"'{' '.join(command)}' failed (exit code {code}); everything was put back as before:\n{said}"
            )


def refusals(settings: Settings, session: Session) -> list[str]:
    """Why these settings of sshd would lock out who is connected; one sentence for each reason."""
    found = []
    user = session.user
    if str(session.port) not in settings.get("port", ()):
        found.append(
            f"the play connects to port {session.port}, and sshd would listen on "
            f"{', '.join(settings.get('port', ()))}: name both in hardening_ssh_ports, then change "
            "ansible_port, and take the old one away last"
        )
    root = settings.get("permitrootlogin", ("",))[0]
    if user == "root" and root in ("no", "forced-commands-only"):
        found.append(
            f"the play connects as root, and sshd would refuse root (PermitRootLogin {root}): name an "
            "administrator in hardening_admins and connect as him (ansible_user) with become, or set "
            "hardening_ssh_root_login to prohibit-password"
        )
    for keyword, names in (("users", (user,)), ("groups", session.groups)):
        allowed = settings.get(f"allow{keyword}", ())
        if allowed and not _matches(allowed, names, session.client):
            found.append(
                f"the play connects as {user}, who is not in Allow{keyword.capitalize()} "
                f"({' '.join(allowed)}): add him to hardening_ssh_allow_{keyword}"
            )
        denied = settings.get(f"deny{keyword}", ())
        if denied and _matches(denied, names, session.client):
            found.append(
                f"the play connects as {user}, whom Deny{keyword.capitalize()} ({' '.join(denied)}) refuses: "
                "take him out of it"
            )
    return found


def allows_password(settings: Settings) -> bool:
    """Whether anybody can log in by typing a password."""
    return "yes" in (
        settings.get("passwordauthentication", ("no",))[0],
        settings.get("kbdinteractiveauthentication", ("no",))[0],
    )


def _matches(patterns: Sequence[str], names: Sequence[str], client: str) -> bool:
    """As sshd_config(5): a user may be followed by @ and a pattern of the address."""
    for pattern in patterns:
        name, _at, place = pattern.partition("@")
        if place and not fnmatch.fnmatchcase(client, place) and "/" not in place:
            continue
        if any(fnmatch.fnmatchcase(one, name) for one in names):
            return True
    return False


def parse_settings(text: str) -> Settings:
    """What `sshd -T` prints: a keyword and its value on each line; some keywords come several times."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        keyword, _space, value = line.strip().partition(" ")
        listed = keyword in ("allowusers", "allowgroups", "denyusers", "denygroups")
        found[keyword] = (*found.get(keyword, ()), *(value.split() if listed else (value,)))
    return found


def sshd_settings(
    overlay: Mapping[str, str | None], whom: Session | None, run: transaction.Run | None = None
) -> tuple[int, str]:
    """Ask sshd what it would make of other drop-ins, for one connection. Nothing in /etc is touched.

    Args:
        overlay: Contents by path, none for a file that is gone. Only drop-ins count.
        whom: The connection.
        run: What runs a command.
    """
    try:
        with open(_SSHD_CONFIG, encoding="utf-8", errors="surrogateescape") as file:
            main = file.read()
    except FileNotFoundError:
        return 1, f"{_SSHD_CONFIG} is not there; install openssh-server"
    if not _INCLUDED.search(main):
        return 1, f"{_SSHD_CONFIG} does not include {_DROP_INS}/*.conf; put that line first in it"
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd insists on it, also when it only checks
    with tempfile.TemporaryDirectory(prefix="flaskworks-sshd-") as directory:
        contents: dict[str, str] = {}
        for path in glob.glob(f"{_DROP_INS}/*.conf"):
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                contents[path] = file.read()
        for path, content in overlay.items():
            contents.pop(path, None)
            if content is not None and os.path.dirname(path) == _DROP_INS:
                contents[path] = content
        for path, content in contents.items():
            _write(os.path.join(directory, os.path.basename(path)), content)
        candidate = os.path.join(directory, "sshd_config")
        _write(candidate, main.replace(f"{_DROP_INS}/", f"{directory}/"))
        who = (
            f"user={whom.user},host={whom.client},addr={whom.client},laddr={whom.address},lport={whom.port}"
            if whom
            else "user=root,host=localhost,addr=127.0.0.1"
        )
        ask = run or (lambda argv: run_command(argv, COMMAND_PATIENCE))
        code, said = ask(["/usr/sbin/sshd", "-T", "-f", candidate, "-C", who])
        return code, said.replace(f"{directory}/", f"{_DROP_INS}/")


def session() -> Session | None:
    """The ssh connection that started this process, told by the environment of its ancestors."""
    pid = os.getppid()
    while pid > 1:
        environment = _environment(pid)
        told = environment.get("SSH_CONNECTION", "").split()
        user = environment.get("LOGNAME", "")
        if len(told) == 4 and user:
            return Session(user, told[0], told[2], int(told[3]), _groups(user))
        pid = _parent(pid)
    return None


def _environment(pid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = file.read().decode("utf-8", "replace").split("\0")
    except OSError:
        return {}
    return dict(pair.partition("=")[::2] for pair in pairs if "=" in pair)


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _groups(user: str) -> tuple[str, ...]:
    try:
        numbers = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        return ()
    names = []
    for number in numbers:
        with contextlib.suppress(KeyError):
            names.append(grp.getgrgid(number).gr_name)
    return tuple(names)


def _script(host: Host) -> str:
    return os.path.join(host.state, "revert")


def _armed(host: Host) -> str:
    """The token of the change that waits for its confirmation."""
    try:
        with open(_script(host), encoding="utf-8") as file:
            return file.read().rstrip().rpartition("# ")[2]
    except FileNotFoundError:
        return ""


def _put_back(host: Host) -> None:
    if os.path.exists(_script(host)):
        host.run("sh", _script(host))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_script(host))
    _disarm(host)


def _disarm(host: Host) -> None:
    host.run("systemctl", "stop", f"{TIMER}.timer")


def _listed(host: Host) -> str | None:
    """Our table as it is loaded, without what its sets have learned; none when it is not there."""
    code, text = host.run("nft", "--terse", "--stateless", "list", "table", "inet", TABLE)
    return None if code else text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _noted(host: Host) -> str:
    try:
        with open(os.path.join(host.state, "ruleset"), encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def _note_ruleset(host: Host) -> None:
    listed = _listed(host)
    os.makedirs(host.state, mode=0o700, exist_ok=True)
    _write(os.path.join(host.state, "ruleset"), f"{_digest(listed) if listed else ''}\n")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
