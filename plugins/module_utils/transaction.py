# Copyright: (c) 2026, the flaskworks.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Install many files as one transaction: stage, validate, swap, check, apply.

Nothing here knows Ansible. The order of events is the promise:

1. *stage*: every new content lies complete and synced beside its destination, under a hidden name;
2. *validate*: every candidate was accepted by its own checker, under its final base name;
3. *mark*: a marker says that what is about to change has not been applied yet;
4. *swap*: renames only; a failure puts back what was there;
5. *check*: the whole was accepted in its place; a refusal puts back what was there;
6. *apply*: the system was told; only then the marker goes.

Killed before 4, nothing has happened and the next run sweeps the litter. Killed later, the next run
finds the marker, completes what is missing, then checks and applies although nothing differs.

A purge removes only what is in the ledger, the list of the files that were written for some element.
A path is struck out before its file goes, and entered after its file came: a run that is killed in
between forgets a file of ours, which stays and is named, but never takes a stranger's for ours.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import grp
import hashlib
import json
import os
import pwd
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .pending_apply import SEARCH_PATH, STATE_DIRECTORY, PendingApply, run_command, sync_directory

# Hidden and ending in "~": neither a glob such as sites-enabled/*, nor the *.conf readers of systemd,
# nor logrotate, cron or sudo take such a name for configuration.
_LITTER = re.compile(r"\.flaskworks-[0-9a-f]{16}\.(?:new|old)~")
_LEDGER = "written.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*")
# A name, or one that systemd-escape has spelled.
_SPELLED = r"[A-Za-z0-9_][A-Za-z0-9_.@+\\-]*"
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_MODE = re.compile(r"0[0-7]{3}|[0-7]{4}")

# A shorter text is a word like "on" that would hide half of a message and betray nothing.
_TELLING = 4

Run = Callable[[Sequence[str]], tuple[int, str]]


class TransactionError(Exception):
    """One or more sentences for the operator; nothing was changed unless they say so."""


@dataclass(frozen=True)
class Rule:
    """How one template becomes files: the patterns hold {name} or another key of the element."""

    path: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    sensitive: bool = False
    validate: tuple[str, ...] = ()
    purge: bool = False
    parents: bool = False
    only_with: str = ""  # the key that an element must have to get the file


@dataclass(frozen=True)
class Expectation:
    """A directory that `apply` must have brought about; patterns as in Rule."""

    path: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755


@dataclass(frozen=True)
class Target:
    """One file to install. `element` is "" for a file that is written once."""

    rule: Rule
    element: str
    path: str
    owner: str
    group: str
    validate: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    elements: Sequence[Mapping[str, Any]]
    rules: Sequence[Rule]
    contents: Sequence[str]
    absent: Sequence[str] = ()
    check: Sequence[str] = ()
    apply: Sequence[Sequence[str]] = ()
    expects: Sequence[Expectation] = ()
    state_directory: str = STATE_DIRECTORY


@dataclass
class Outcome:
    changes: dict[str, list[str]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    applied: bool = False
    unvalidated: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.changes or self.removed or self.applied)


@dataclass(frozen=True)
class _Write:
    """A target that differs from what is there. `before` is None when there is no regular file."""

    target: Target
    content: bytes
    uid: int
    gid: int
    before: bytes | None
    remark: str


@dataclass(frozen=True)
class _Removal:
    path: str
    sensitive: bool
    before: bytes | None


@dataclass
class _Plan:
    writes: list[_Write] = field(default_factory=list)
    removals: list[_Removal] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    recorded: frozenset[str] = frozenset()
    to_record: frozenset[str] = frozenset()
    bare: bool = False

    @property
    def differs(self) -> bool:
        """Whether a file would be written or removed."""
        return bool(self.writes or self.removals)


@dataclass
class _Step:
    """One destination during the swap. `backup` is None where nothing was there before."""

    path: str
    staged: str | None
    backup: str | None = None
    swapped: bool = False


def parse_mode(text: str) -> int:
    """Turn "0640" into 0o640. An unquoted YAML 0640 arrives as "416" and is refused."""
    if not _MODE.fullmatch(text):
        raise TransactionError(
            f"mode '{text}' is not a quoted octal number with a leading zero; write it like '0640'"
        )
    return int(text, 8)


def _fill(pattern: str, element: Mapping[str, Any]) -> str:
    def value(match: re.Match[str]) -> str:
        found = element.get(match[1])
        if not isinstance(found, str) or not found:
            raise TransactionError(
                f"{element['name'] or 'files'}: '{pattern}' needs the text '{match[1]}', which the element "
                "does not have; add it"
            )
        return found

    return _PLACEHOLDER.sub(value, pattern)


def placeholders(patterns: Sequence[str]) -> set[str]:
    """Names of the element's keys that the patterns use."""
    return {match for pattern in patterns for match in _PLACEHOLDER.findall(pattern)}


def _check_path(path: str, owner: str) -> None:
    if not path.startswith("/") or path.endswith("/") or os.path.normpath(path) != path or "\0" in path:
        raise TransactionError(
            f"{owner}: '{path}' is not a plain absolute path; write it without '..', '//' and a trailing '/'"
        )


def expand(elements: Sequence[Mapping[str, Any]], rules: Sequence[Rule]) -> list[Target]:
    """Pair every rule with every element (or with none), in the order the contents are rendered.

    Raises TransactionError for names that could leave their directory and for two files at one path.
    """
    seen: set[str] = set()
    for element in elements:
        name = element.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise TransactionError(
                f"{name!r} cannot be an element's name; it becomes part of paths: use letters, digits and _ "
                ". @ + -, not beginning with a dot or a dash"
            )
        if name in seen:
            raise TransactionError(f"{name}: two elements have this name; rename one of them")
        seen.add(name)

    targets: list[Target] = []
    taken: dict[str, str] = {}
    for rule in rules:
        used = placeholders([rule.path])
        if rule.purge and len(used) != 1:
            raise TransactionError(
                f"{rule.path}: purge needs a path with exactly one placeholder, as in {{name}}; "
                "change the path or drop purge"
            )
        if rule.only_with and not used:
            raise TransactionError(
                f"{rule.path}: is written once and depends on no element; drop only_with, or add {{name}}"
            )
        for element in elements if used else [{"name": ""}]:
            if rule.only_with and not element.get(rule.only_with):
                continue
            target = Target(
                rule=rule,
                element=element["name"],
                path=_fill(rule.path, element),
                owner=_fill(rule.owner, element),
                group=_fill(rule.group, element),
                validate=tuple(_fill(word, element) for word in rule.validate),
            )
            _check_path(target.path, target.element or "files")
            if target.path in taken:
                raise TransactionError(
                    f"{target.path}: wanted by {_whose(taken[target.path])} and by {_whose(target.element)}; "
                    "give each file its own path"
                )
            taken[target.path] = target.element
            targets.append(target)
    return targets


def _whose(element: str) -> str:
    return f"'{element}'" if element else "a file that is written once"


def execute(request: Request, *, check_mode: bool = False, run: Run = run_command) -> Outcome:
    """Bring the files of the request about, all or none. In check mode only say what would happen."""
    targets = expand(request.elements, request.rules)
    if len(targets) != len(request.contents):
        raise TransactionError(
            f"{len(request.contents)} rendered texts came for {len(targets)} files; the two sides of the "
            "collection differ in version"
        )
    marker = PendingApply(os.path.join(request.state_directory, f"{_fingerprint(request)}.pending"))

    plan = _compare(request, targets, check_mode)
    pending = marker.is_set()
    if check_mode:
        outcome = _describe(plan)
        outcome.applied = bool(request.apply and (plan.differs or plan.unmet or pending))
        outcome.unvalidated = _validate_candidates(plan, _candidates_elsewhere, run, lenient=True)
        return outcome
    if not (plan.differs or plan.unmet or plan.litter or pending or plan.recorded != plan.to_record):
        return _describe(plan)
    try:
        with _alone(request.state_directory):
            # Whoever held the lock may have changed what was compared above.
            return _change(request, _compare(request, targets, check_mode), marker, run)
    except OSError as error:
        raise TransactionError(
            f"{error.filename or marker.path}: {error.strerror}; remove the cause and run again"
        ) from error


def _fingerprint(request: Request) -> str:
    """Name the task by what it owns, not by its elements: those may differ in the run after a kill."""
    owned = [
        sorted(rule.path for rule in request.rules),
        sorted(request.absent),
        [argv[0] for argv in request.apply],
    ]
    return hashlib.sha256(json.dumps(owned).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _alone(state_directory: str, patience: float = 120.0) -> Iterator[None]:
    """Hold the lock that keeps one transaction from sweeping another one's staged files."""
    os.makedirs(state_directory, mode=0o700, exist_ok=True)
    descriptor = os.open(
        os.path.join(state_directory, "templates.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TransactionError(
                        f"another run has been installing files on this host for {patience:.0f} s; wait for "
                        "it and start again"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _account(name: str, database: str) -> int | None:
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid if database == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _owner_of(uid: int, gid: int) -> str:
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return f"{user}:{group}"


def _compare(request: Request, targets: Sequence[Target], check_mode: bool) -> _Plan:
    """Find what differs. Raises one TransactionError with every problem found."""
    plan = _Plan()
    problems: list[str] = []
    made = {os.path.dirname(target.path) for target in targets if target.rule.parents}
    for target, content in zip(targets, request.contents, strict=True):
        try:
            _compare_file(plan, target, content.encode("utf-8"), check_mode, made)
        except TransactionError as problem:
            problems.append(str(problem))
    wanted = {target.path for target in targets}
    for path in request.absent:
        try:
            _check_path(path, "absent")
            if path in wanted:
                raise TransactionError(f"{path}: both installed and absent; remove it from one of the lists")
            _compare_removal(plan, path, True)
        except TransactionError as problem:
            problems.append(str(problem))
    plan.recorded = _read_ledger(request.state_directory)
    for rule in request.rules:
        for path in _unwanted(rule, wanted) if rule.purge else ():
            if path in plan.recorded:
                _compare_removal(plan, path, rule.sensitive)
            elif path not in plan.strangers:
                plan.strangers.append(path)
    gone = {removal.path for removal in plan.removals}
    present = {path for path in plan.recorded - gone if os.path.lexists(path)}
    plan.to_record = frozenset(present | {target.path for target in targets if target.rule.purge})
    for element in request.elements:
        for expectation in request.expects:
            reason = _unmet(expectation, element)
            if reason:
                plan.unmet.append(reason)
    if problems:
        raise TransactionError("\n".join(problems))
    directories = {os.path.dirname(target.path) for target in targets} | {
        os.path.dirname(rule.path) for rule in request.rules if "{" not in os.path.dirname(rule.path)
    }
    plan.litter = _litter(directories | {request.state_directory}, request.state_directory)
    return plan


def _compare_file(plan: _Plan, target: Target, content: bytes, check_mode: bool, made: set[str]) -> None:
    whose = target.element or "files"
    parent = os.path.dirname(target.path)
    uid, gid = _account(target.owner, "user"), _account(target.group, "group")
    if not os.path.isdir(parent):
        if os.path.lexists(parent):
            raise TransactionError(
                f"{whose}: {parent} is not a directory, so {os.path.basename(target.path)} cannot be "
                "installed there; move it away"
            )
        if not check_mode and parent not in made:
            raise TransactionError(
                f"{whose}: the directory {parent} of {os.path.basename(target.path)} does not exist; "
                "create it first"
            )
        plan.bare = True
    if not check_mode:
        if uid is None:
            raise TransactionError(
                f"{whose}: {target.path} belongs to the user '{target.owner}', who does not exist; create "
                "the account first"
            )
        if gid is None:
            raise TransactionError(
                f"{whose}: {target.path} belongs to the group '{target.group}', which does not exist; create "
                "the account first"
            )
    # An unknown account (check mode only) can match no file, and its number is never used.
    wanted_uid, wanted_gid = -1 if uid is None else uid, -1 if gid is None else gid
    try:
        found = os.lstat(target.path)
    except (FileNotFoundError, NotADirectoryError):
        plan.writes.append(_Write(target, content, wanted_uid, wanted_gid, None, ""))
        return
    if stat.S_ISLNK(found.st_mode):
        plan.writes.append(
            _Write(
                target,
                content,
                wanted_uid,
                wanted_gid,
                None,
                f"a link to {os.readlink(target.path)} becomes a file",
            )
        )
        return
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise TransactionError(f"{whose}: {target.path} is {kind}, which is never replaced; move it away")
    with open(target.path, "rb") as file:
        before = file.read()
    remarks = []
    if (found.st_uid, found.st_gid) != (wanted_uid, wanted_gid):
        remarks.append(f"owner {_owner_of(found.st_uid, found.st_gid)} becomes {target.owner}:{target.group}")
    if stat.S_IMODE(found.st_mode) != target.rule.mode:
        remarks.append(f"mode {stat.S_IMODE(found.st_mode):04o} becomes {target.rule.mode:04o}")
    if remarks or before != content:
        plan.writes.append(_Write(target, content, wanted_uid, wanted_gid, before, ", ".join(remarks)))


def _compare_removal(plan: _Plan, path: str, sensitive: bool) -> None:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(found.st_mode):
        raise TransactionError(f"{path}: is a directory, which is never removed; remove it by hand")
    if any(removal.path == path for removal in plan.removals):
        return
    before = None
    if stat.S_ISREG(found.st_mode) and not sensitive:
        with open(path, "rb") as file:
            before = file.read()
    plan.removals.append(_Removal(path, sensitive, before))


def _unwanted(rule: Rule, wanted: set[str]) -> list[str]:
    """Files that match the rule's path for some text in its placeholder, and that no element wants."""
    parts = _PLACEHOLDER.sub("\0", rule.path).split("\0")
    literal = [re.escape(part) for part in parts]
    spelled = re.compile(f"{literal[0]}(?P<name>{_SPELLED}){'(?P=name)'.join(literal[1:])}")
    found = glob.glob("*".join(glob.escape(part) for part in parts))
    return sorted(
        path
        for path in found
        if path not in wanted
        and spelled.fullmatch(path)
        and not (os.path.isdir(path) and not os.path.islink(path))
    )


def _read_ledger(state_directory: str) -> frozenset[str]:
    """Paths that earlier runs wrote under a rule that purges. A ledger nobody can read owns nothing."""
    path = os.path.join(state_directory, _LEDGER)
    try:
        with open(path, encoding="utf-8") as file:
            listed = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise TransactionError(f"{path}: {error.strerror}; remove the cause and run again") from error
    except ValueError:
        return frozenset()
    return (
        frozenset(path for path in listed if isinstance(path, str))
        if isinstance(listed, list)
        else frozenset()
    )


def _unmet(expectation: Expectation, element: Mapping[str, Any]) -> str:
    """Why the directory is not as expected, or nothing."""
    path = _fill(expectation.path, element)
    owner, group = _fill(expectation.owner, element), _fill(expectation.group, element)
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return f"{element['name']}: {path} does not exist"
    if not stat.S_ISDIR(found.st_mode):
        return f"{element['name']}: {path} is not a directory"
    if (found.st_uid, found.st_gid) != (_account(owner, "user"), _account(group, "group")):
        actual = _owner_of(found.st_uid, found.st_gid)
        return f"{element['name']}: {path} belongs to {actual} instead of {owner}:{group}"
    if stat.S_IMODE(found.st_mode) != expectation.mode:
        actual = f"{stat.S_IMODE(found.st_mode):04o}"
        return f"{element['name']}: {path} has mode {actual} instead of {expectation.mode:04o}"
    return ""


def _litter(directories: set[str], state_directory: str) -> list[str]:
    found: list[str] = []
    for directory in sorted(directories):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        found += [os.path.join(directory, name) for name in names if _LITTER.fullmatch(name)]
    return found + glob.glob(os.path.join(glob.escape(state_directory), "candidates-*"))


def _sweep(paths: Sequence[str]) -> None:
    # What cannot be swept now is swept by the next run; it is no reason to fail.
    for path in paths:
        with contextlib.suppress(OSError):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


def _describe(plan: _Plan) -> Outcome:
    outcome = Outcome(strangers=list(plan.strangers))
    for write in plan.writes:
        target = write.target
        outcome.changes.setdefault(target.element, []).append(target.path)
        if target.rule.sensitive:
            outcome.diff.append({"prepared": f"{target.path}: changes, its content is hidden\n"})
        elif write.before != write.content:
            outcome.diff.append(
                {
                    "before_header": target.path if write.before is not None else f"{target.path} (new)",
                    "after_header": target.path,
                    "before": (write.before or b"").decode("utf-8", "replace"),
                    "after": write.content.decode("utf-8", "replace"),
                }
            )
        if write.remark:
            outcome.diff.append({"prepared": f"{target.path}: {write.remark}\n"})
    for removal in plan.removals:
        outcome.removed.append(removal.path)
        if removal.before is None:
            outcome.diff.append({"prepared": f"{removal.path}: removed\n"})
        else:
            outcome.diff.append(
                {
                    "before_header": removal.path,
                    "after_header": f"{removal.path} (removed)",
                    "before": removal.before.decode("utf-8", "replace"),
                    "after": "",
                }
            )
    outcome.diff += [{"prepared": f"{reason}; this gets repaired\n"} for reason in plan.unmet]
    return outcome


def _change(request: Request, plan: _Plan, marker: PendingApply, run: Run) -> Outcome:
    _sweep(plan.litter)
    outcome = _describe(plan)
    pending = marker.is_set()
    steps: list[_Step] = []
    try:
        _stage(plan, steps)
        _validate_candidates(plan, lambda: _candidates_in(request.state_directory), run, lenient=False)
        if plan.differs and (request.check or request.apply) and not pending:
            marker.set(json.dumps({"changes": outcome.changes, "removed": outcome.removed}))
        kept = plan.recorded & plan.to_record
        try:
            _write_ledger(request.state_directory, plan.recorded, kept)
            _swap(steps)
            if request.check and (plan.differs or pending):
                _check(request, plan, run)
        except BaseException:
            _put_back(steps)
            with contextlib.suppress(OSError):
                _write_ledger(request.state_directory, kept, plan.recorded)
            if not pending:
                with contextlib.suppress(OSError):
                    marker.clear()
            raise
    finally:
        _sweep([path for step in steps for path in (step.staged, step.backup) if path and not step.swapped])
    _sweep([step.backup for step in steps if step.backup])
    _write_ledger(request.state_directory, kept, plan.to_record)
    if request.apply and (plan.differs or pending or plan.unmet):
        _apply(request, plan, run)
        outcome.applied = True
    marker.clear()
    return outcome


def _create(path: str, content: bytes, mode: int, uid: int, gid: int) -> None:
    """Write a new file that never, not even empty, has a wider mode or another owner than wanted."""
    earlier = os.umask(0)
    try:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode & 0o777
        )
    finally:
        os.umask(earlier)
    try:
        found = os.fstat(descriptor)
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.fchown(descriptor, uid, gid)
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
            os.fchmod(descriptor, mode)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_parents(paths: Sequence[str]) -> None:
    earlier = os.umask(0o022)
    try:
        for path in paths:
            os.makedirs(os.path.dirname(path), exist_ok=True)
    finally:
        os.umask(earlier)


def _beside(path: str, suffix: str) -> str:
    return os.path.join(os.path.dirname(path), f".flaskworks-{secrets.token_hex(8)}.{suffix}~")


def _stage(plan: _Plan, steps: list[_Step]) -> None:
    _make_parents([write.target.path for write in plan.writes if write.target.rule.parents])
    for write in plan.writes:
        staged = _beside(write.target.path, "new")
        steps.append(_Step(write.target.path, staged))
        try:
            _create(staged, write.content, write.target.rule.mode, write.uid, write.gid)
        except OSError as error:
            raise TransactionError(
                f"{write.target.element or 'files'}: {write.target.path} cannot be written: "
                f"{error.strerror}; nothing was changed"
            ) from error
    steps += [_Step(removal.path, None) for removal in plan.removals]


@contextlib.contextmanager
def _candidates_in(state_directory: str) -> Iterator[str]:
    os.makedirs(state_directory, mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="candidates-", dir=state_directory) as directory:
        yield directory


@contextlib.contextmanager
def _candidates_elsewhere() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="flaskworks-candidates-") as directory:
        yield directory


def _validate_candidates(
    plan: _Plan, place: Callable[[], contextlib.AbstractContextManager[str]], run: Run, *, lenient: bool
) -> list[str]:
    """Ask every file's own checker. Lenient (check mode): skip what a bare host cannot answer.

    Candidates whose destinations share a directory share one here too, so that a unit finds its
    sibling. Returns the paths that were not validated.
    """
    wanted = [write for write in plan.writes if write.target.validate]
    if not wanted:
        return []
    if lenient:
        askable = [
            write
            for write in wanted
            if not plan.bare and shutil.which(write.target.validate[0], path=SEARCH_PATH)
        ]
        skipped = [write.target.path for write in wanted if write not in askable]
    else:
        askable, skipped = wanted, []
    if not askable:
        return skipped
    with place() as directory:
        rooms: dict[str, str] = {}
        candidates: dict[str, str] = {}
        for write in plan.writes:
            path = write.target.path
            room = rooms.setdefault(os.path.dirname(path), os.path.join(directory, str(len(rooms))))
            os.makedirs(room, mode=0o700, exist_ok=True)
            candidates[path] = os.path.join(room, os.path.basename(path))
            _create(candidates[path], write.content, write.target.rule.mode, os.geteuid(), os.getegid())

        def ask(write: _Write) -> str:
            argv = [word.replace("%s", candidates[write.target.path]) for word in write.target.validate]
            code, output = run(argv)
            if code == 0:
                return ""
            said = (
                "its output is withheld, because the file is sensitive"
                if write.target.rule.sensitive
                else output.replace(candidates[write.target.path], write.target.path)
            )
            whose = f"{write.target.element}: " if write.target.element else ""
            return (
                f"{whose}{write.target.path} was refused by '{write.target.validate[0]}' (exit code {code}); "
                f"nothing was changed, correct its template or values and run again:\n{said or '(no output)'}"
            )

        with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 1)) as pool:
            refused = [answer for answer in pool.map(ask, askable) if answer]
    if refused:
        raise TransactionError("\n".join(refused))
    return skipped


def _write_ledger(state_directory: str, before: frozenset[str], after: frozenset[str]) -> None:
    if before != after:
        _note(os.path.join(state_directory, _LEDGER), json.dumps(sorted(after), indent=1))


def _note(path: str, text: str) -> None:
    """Write a file of our own state, whole or not at all."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    staged = _beside(path, "new")
    _create(staged, text.encode(), 0o600, os.geteuid(), os.getegid())
    os.rename(staged, path)
    _sync_directories([path])


def _swap(steps: Sequence[_Step]) -> None:
    for step in steps:
        try:
            if os.path.lexists(step.path):
                backup = _beside(step.path, "old")
                os.link(step.path, backup, follow_symlinks=False)
                step.backup = backup
            # Said before it is done: an interruption right after the rename must be undone, too.
            step.swapped = True
            if step.staged is None:
                os.unlink(step.path)
            else:
                os.rename(step.staged, step.path)
        except OSError as error:
            raise TransactionError(
                f"{step.path} cannot be replaced: {error.strerror}; everything was put back as it was"
            ) from error
    _sync_directories([step.path for step in steps])


def _sync_directories(paths: Sequence[str]) -> None:
    for directory in sorted({os.path.dirname(path) for path in paths}):
        sync_directory(directory)


def _put_back(steps: Sequence[_Step]) -> None:
    lost: list[str] = []
    for step in reversed(steps):
        if not step.swapped:
            continue
        try:
            if step.backup is not None:
                os.rename(step.backup, step.path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(step.path)
            step.swapped = False
        except OSError as error:
            lost.append(
                f"{step.path} could not be put back "
                f"({error.strerror}){f', its old content is in {step.backup}' if step.backup else ''}"
            )
    if lost:
        raise TransactionError("; ".join(lost) + "; repair these by hand")


def _hide(output: str, plan: _Plan) -> str:
    """Strike out what a checker quotes from a sensitive file: its lines, and what follows an '='."""
    quoted: set[str] = set()
    for write in plan.writes:
        if write.target.rule.sensitive:
            for line in write.content.decode("utf-8", "replace").splitlines():
                quoted |= {
                    line.strip(),
                    line.partition("=")[2].strip(),
                    line.partition("=")[2].strip().strip("\"'"),
                }
    for text in sorted(quoted, key=len, reverse=True):
        if len(text) >= _TELLING:
            output = output.replace(text, "[hidden]")
    return output or "(no output)"


def _check(request: Request, plan: _Plan, run: Run) -> None:
    code, output = run(request.check)
    if code:
        concerned = ", ".join(
            [write.target.path for write in plan.writes] + [removal.path for removal in plan.removals]
        )
        outcome = (
            f"{concerned} put back as before"
            if concerned
            else "the files were installed by an interrupted run and stay"
        )
        raise TransactionError(
            f"'{' '.join(request.check)}' refused the result (exit code {code}); {outcome}, correct the "
            f"template or values and run again:\n{_hide(output, plan)}"
        )


def _apply(request: Request, plan: _Plan, run: Run) -> None:
    for argv in request.apply:
        code, output = run(argv)
        if code:
            raise TransactionError(
                f"'{' '.join(argv)}' failed (exit code {code}); the files are in place and the next run "
                f"applies them again, remove the cause and run again:\n{_hide(output, plan)}"
            )
    unmet = [
        reason
        for element in request.elements
        for expectation in request.expects
        if (reason := _unmet(expectation, element))
    ]
    if unmet:
        raise TransactionError(
            "after applying, " + "; ".join(unmet) + "; see what stands in the way and run again"
        )
