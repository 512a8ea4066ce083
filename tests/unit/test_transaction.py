"""The transaction keeps its promise: all files or none, whatever fails and whenever it is killed."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils import transaction
from ansible_collections.flaskworks.server.plugins.module_utils.transaction import (
    Expectation,
    Outcome,
    Request,
    Rule,
    TransactionError,
    execute,
    expand,
    parse_mode,
)
from hypothesis import given, settings
from hypothesis import strategies as st

ME = pwd.getpwuid(os.geteuid()).pw_name
MINE = grp.getgrgid(os.getegid()).gr_name


class Recorder:
    """Stands in for the commands: remembers them and refuses those it is told to."""

    def __init__(self, refuse: Sequence[str] = ()) -> None:
        self.calls: list[list[str]] = []
        self.seen: list[str] = []
        self.refuse = refuse

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        self.calls.append(list(argv))
        if argv[0] == "true":
            self.seen.append(Path(argv[1]).read_text())
        return (1, f"{argv[0]} says no") if argv[0] in self.refuse else (0, "")


def rule(directory: Path, pattern: str = "{name}.conf", **options: Any) -> Rule:
    return Rule(path=f"{directory}/{pattern}", owner=ME, group=MINE, **options)


def request(
    directory: Path, texts: dict[str, str], rules: Sequence[Rule] | None = None, **options: Any
) -> Request:
    """One element per text; every rule gets the element's text."""
    rules = [rule(directory)] if rules is None else rules
    elements = [{"name": name} for name in texts]
    contents = [texts.get(target.element, "once\n") for target in expand(elements, rules)]
    state = str(directory.parent / "state")
    return Request(elements=elements, rules=rules, contents=contents, state_directory=state, **options)


def tree(directory: Path) -> dict[str, tuple[str, int]]:
    """What an observer of the directory sees: names, contents (or link targets) and modes."""
    found = {}
    for path in sorted(directory.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.name.startswith(".flaskworks-"):
            continue
        if path.is_symlink():
            found[path.name] = (f"-> {path.readlink()}", mode)
        elif path.is_file():
            found[path.name] = (path.read_text(), mode)
    return found


def litter(directory: Path) -> list[str]:
    return [str(path) for path in directory.parent.rglob(".flaskworks-*")] + [
        str(path) for path in directory.parent.glob("state/candidates-*")
    ]


def state(directory: Path) -> dict[str, str]:
    """What the runs noted for their successors."""
    return {path.name: path.read_text() for path in (directory.parent / "state").iterdir()}


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    directory = tmp_path / "etc"
    directory.mkdir()
    return directory


def test_new_files_have_their_content_and_mode_and_a_second_run_touches_nothing(etc: Path) -> None:
    rules = [rule(etc), rule(etc, "{name}.secret", mode=0o600, sensitive=True), rule(etc, "all", mode=0o640)]
    run = Recorder()
    wanted = request(etc, {"a": "one\n", "b": "zwölf\n"}, rules, apply=[["reload"]])

    outcome = execute(wanted, run=run)

    assert tree(etc) == {
        "a.conf": ("one\n", 0o644),
        "a.secret": ("one\n", 0o600),
        "all": ("once\n", 0o640),
        "b.conf": ("zwölf\n", 0o644),
        "b.secret": ("zwölf\n", 0o600),
    }
    assert outcome.changes == {
        "a": [f"{etc}/a.conf", f"{etc}/a.secret"],
        "b": [f"{etc}/b.conf", f"{etc}/b.secret"],
        "": [f"{etc}/all"],
    }
    assert run.calls == [["reload"]]
    before = {path: path.stat().st_mtime_ns for path in etc.iterdir()}
    again = execute(wanted, run=run)
    assert not again.changed
    assert run.calls == [["reload"]]
    assert {path: path.stat().st_mtime_ns for path in etc.iterdir()} == before
    assert litter(etc) == []


def test_only_the_element_that_differs_is_named_and_written(etc: Path) -> None:
    execute(request(etc, {"a": "1\n", "b": "1\n"}), run=Recorder())
    untouched = (etc / "a.conf").stat()
    outcome = execute(request(etc, {"a": "1\n", "b": "2\n"}), run=Recorder())
    assert outcome.changes == {"b": [f"{etc}/b.conf"]}
    assert (etc / "a.conf").stat().st_ino == untouched.st_ino


def test_a_wrong_mode_is_a_change_and_is_shown(etc: Path) -> None:
    execute(request(etc, {"a": "1\n"}), run=Recorder())
    (etc / "a.conf").chmod(0o666)
    outcome = execute(request(etc, {"a": "1\n"}), run=Recorder())
    assert outcome.changes == {"a": [f"{etc}/a.conf"]}
    assert outcome.diff == [{"prepared": f"{etc}/a.conf: mode 0666 becomes 0644\n"}]
    assert tree(etc)["a.conf"] == ("1\n", 0o644)


def test_check_mode_says_the_same_and_writes_nothing(etc: Path) -> None:
    execute(request(etc, {"gone": "old\n"}, [rule(etc, purge=True)]), run=Recorder())
    noted = state(etc)
    wanted = request(etc, {"a": "1\n"}, [rule(etc, purge=True)], apply=[["reload"]])
    run = Recorder()
    foretold = execute(wanted, check_mode=True, run=run)
    assert (tree(etc), run.calls) == ({"gone.conf": ("old\n", 0o644)}, [])
    assert state(etc) == noted
    happened = execute(wanted, run=run)
    assert foretold == happened
    assert tree(etc) == {"a.conf": ("1\n", 0o644)}


def test_check_mode_leaves_no_trace_on_a_bare_host(etc: Path) -> None:
    execute(request(etc, {"a": "1\n"}, [rule(etc, purge=True)]), check_mode=True, run=Recorder())
    assert list(etc.parent.iterdir()) == [etc]


def test_check_mode_passes_on_a_bare_host_and_says_what_it_could_not_validate(etc: Path) -> None:
    bare = Rule(f"{etc}/missing/{{name}}", owner="nobody-yet", group="nobody-yet", validate=("true", "%s"))
    outcome = execute(request(etc, {"a": "1\n"}, [bare]), check_mode=True, run=Recorder())
    assert outcome.changes == {"a": [f"{etc}/missing/a"]}
    assert outcome.unvalidated == [f"{etc}/missing/a"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            Rule("{d}/none/{name}", owner=ME, group=MINE),
            "a: the directory {d}/none of a does not exist; create it first",
        ),
        (
            Rule("{d}/{name}", owner="nobody-yet", group=MINE),
            "a: {d}/a belongs to the user 'nobody-yet', who does not exist; create the account first",
        ),
        (
            Rule("{d}/{name}", owner=ME, group="none-yet"),
            "a: {d}/a belongs to the group 'none-yet', which does not exist; create the account first",
        ),
        (
            Rule("{d}/folder", owner=ME, group=MINE),
            "files: {d}/folder is a directory, which is never replaced; move it away",
        ),
        (
            Rule("{d}/pipe", owner=ME, group=MINE),
            "files: {d}/pipe is not a regular file, which is never replaced; move it away",
        ),
    ],
)
def test_what_cannot_be_installed_is_refused_in_a_sentence(etc: Path, wrong: Rule, sentence: str) -> None:
    (etc / "folder").mkdir()
    os.mkfifo(etc / "pipe")
    placed = Rule(wrong.path.replace("{d}", str(etc)), owner=wrong.owner, group=wrong.group)
    good = rule(etc, "good")
    with pytest.raises(TransactionError) as refusal:
        execute(request(etc, {"a": "1\n"}, [good, placed]), run=Recorder())
    assert str(refusal.value) == sentence.replace("{d}", str(etc))
    assert not (etc / "good").exists()


def test_all_obstacles_are_told_at_once(etc: Path) -> None:
    for name in ("a", "b"):
        (etc / f"{name}.conf").mkdir()
    with pytest.raises(TransactionError, match=r"a\.conf is a directory(.|\n)*b\.conf is a directory"):
        execute(request(etc, {"a": "1\n", "b": "1\n"}), run=Recorder())


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "-rf", ".hidden", "a b", "a\n", "ä", None, 7])
def test_a_name_that_could_leave_its_place_is_refused(name: object) -> None:
    with pytest.raises(TransactionError, match="cannot be an element's name"):
        expand([{"name": name}], [Rule("/etc/{name}")])


def test_two_files_at_one_path_are_refused() -> None:
    with pytest.raises(
        TransactionError, match=r"/etc/x: wanted by 'a' and by 'b'; give each file its own path"
    ):
        expand([{"name": "a", "at": "x"}, {"name": "b", "at": "x"}], [Rule("/etc/{at}")])
    with pytest.raises(TransactionError, match="a: two elements have this name"):
        expand([{"name": "a"}, {"name": "a"}], [Rule("/etc/{name}")])


@pytest.mark.parametrize("path", ["etc/{name}", "/etc/../{name}", "/etc//{name}", "/etc/{name}/"])
def test_a_path_must_be_plain(path: str) -> None:
    with pytest.raises(TransactionError, match="not a plain absolute path"):
        expand([{"name": "a"}], [Rule(path)])


def test_paths_take_any_text_of_the_element_and_miss_none_silently() -> None:
    assert expand([{"name": "a", "home": "/srv/a"}], [Rule("{home}/x")])[0].path == "/srv/a/x"
    with pytest.raises(TransactionError, match=r"a: '\{home\}/x' needs the text 'home'"):
        expand([{"name": "a"}], [Rule("{home}/x")])


@pytest.mark.parametrize("mode", ["416", "640", "0888", "u=rw", "", "00640"])
def test_a_mode_is_octal_with_a_leading_zero(mode: str) -> None:
    with pytest.raises(TransactionError, match="write it like '0640'"):
        parse_mode(mode)
    assert parse_mode("0640") == 0o640


def test_a_link_is_replaced_and_its_target_left_alone(etc: Path) -> None:
    (etc / "target").write_text("1\n")
    (etc / "a.conf").symlink_to("target")
    execute(request(etc, {"a": "1\n"}), run=Recorder())
    assert tree(etc) == {"a.conf": ("1\n", 0o644), "target": ("1\n", 0o644)}


def test_a_refused_check_puts_a_link_back_as_a_link(etc: Path) -> None:
    (etc / "a.conf").symlink_to("nowhere")
    with pytest.raises(TransactionError):
        execute(request(etc, {"a": "1\n"}, check=["nginx"]), run=Recorder(refuse=["nginx"]))
    assert (etc / "a.conf").readlink() == Path("nowhere")


def test_purge_removes_what_was_written_for_other_names_and_nothing_else(etc: Path) -> None:
    rules = [rule(etc, "app-{name}.conf", purge=True)]
    execute(request(etc, {"a": "x\n", "link": "x\n", "old": "x\n", "dir": "x\n"}, rules), run=Recorder())
    for name in ("app-.conf", "app-x.conf.bak", "other.conf"):
        (etc / name).write_text("x\n")
    (etc / "app-dir.conf").unlink()
    (etc / "app-dir.conf").mkdir()
    (etc / "app-link.conf").unlink()
    (etc / "app-link.conf").symlink_to("other.conf")
    outcome = execute(request(etc, {"a": "x\n"}, rules), run=Recorder())
    assert outcome.removed == [f"{etc}/app-link.conf", f"{etc}/app-old.conf"]
    assert (outcome.changes, outcome.strangers) == ({}, [])
    assert (etc / "app-dir.conf").is_dir()
    assert execute(request(etc, {}, rules), run=Recorder()).removed == [f"{etc}/app-a.conf"]


def test_a_file_that_somebody_else_made_stays_and_is_named(etc: Path) -> None:
    rules = [rule(etc, "app-{name}.conf", purge=True)]
    (etc / "app-legacy.conf").write_text("by hand\n")
    for mode in (True, False, False):
        outcome = execute(request(etc, {"a": "x\n"}, rules), check_mode=mode, run=Recorder())
        assert (outcome.removed, outcome.strangers) == ([], [f"{etc}/app-legacy.conf"])
    assert not outcome.changed
    execute(request(etc, {"a": "x\n", "legacy": "described\n"}, rules), run=Recorder())
    assert execute(request(etc, {"a": "x\n"}, rules), run=Recorder()).removed == [f"{etc}/app-legacy.conf"]


def test_a_path_whose_file_is_gone_may_become_somebody_elses(etc: Path) -> None:
    rules = [rule(etc, purge=True)]
    execute(request(etc, {"a": "x\n", "b": "x\n"}, rules), run=Recorder())
    (etc / "b.conf").unlink()
    assert not execute(request(etc, {"a": "x\n"}, rules), run=Recorder()).changed
    (etc / "b.conf").write_text("by hand\n")
    assert execute(request(etc, {"a": "x\n"}, rules), run=Recorder()).strangers == [f"{etc}/b.conf"]


def test_a_file_that_was_right_already_is_ours_from_then_on(etc: Path) -> None:
    (etc / "a.conf").write_text("x\n")
    (etc / "a.conf").chmod(0o644)
    assert not execute(request(etc, {"a": "x\n"}, [rule(etc, purge=True)]), run=Recorder()).changed
    outcome = execute(request(etc, {}, [rule(etc, purge=True)]), run=Recorder())
    assert outcome.removed == [f"{etc}/a.conf"]


def test_a_refused_purge_is_tried_again(etc: Path) -> None:
    execute(request(etc, {"a": "x\n"}, [rule(etc, purge=True)]), run=Recorder())
    emptied = request(etc, {}, [rule(etc, purge=True)], check=["nginx"])
    with pytest.raises(TransactionError, match="put back as before"):
        execute(emptied, run=Recorder(refuse=["nginx"]))
    assert execute(emptied, run=Recorder()).removed == [f"{etc}/a.conf"]


@pytest.mark.parametrize("text", ["", "{", "[1, null]", '{"a": 1}', '"text"'])
def test_an_unreadable_list_of_what_was_written_owns_nothing(etc: Path, text: str) -> None:
    rules = [rule(etc, purge=True)]
    execute(request(etc, {"a": "x\n", "b": "x\n"}, rules), run=Recorder())
    (etc.parent / "state" / "written.json").write_text(text)
    assert execute(request(etc, {"a": "x\n"}, rules), run=Recorder()).strangers == [f"{etc}/b.conf"]
    assert execute(request(etc, {}, rules), run=Recorder()).removed == [f"{etc}/a.conf"]


def test_purge_of_a_path_with_the_name_twice_matches_the_same_name_only(etc: Path) -> None:
    rules = [rule(etc, "{name}/{name}.conf", purge=True, parents=True)]
    execute(request(etc, {"a": "x\n", "b": "x\n"}, rules), run=Recorder())
    (etc / "b" / "c.conf").write_text("x\n")
    outcome = execute(request(etc, {"a": "x\n"}, rules), run=Recorder())
    assert (outcome.removed, outcome.strangers) == ([f"{etc}/b/b.conf"], [])


def test_a_missing_directory_is_made_on_demand_only(etc: Path) -> None:
    wanted = request(etc, {"a": "1\n"}, [rule(etc, "sub/other"), rule(etc, "sub/{name}", parents=True)])
    assert execute(wanted, check_mode=True, run=Recorder()).changed
    assert not (etc / "sub").exists()
    execute(wanted, run=Recorder())
    assert (etc / "sub" / "a").read_text() == "1\n"
    assert stat.S_IMODE((etc / "sub").stat().st_mode) == 0o755


def test_purge_needs_a_path_that_says_what_belongs_to_it() -> None:
    for path in ("/etc/once.conf", "/etc/{name}/{other}.conf"):
        with pytest.raises(TransactionError, match="purge needs a path with exactly one placeholder"):
            expand([], [Rule(path, purge=True)])


def test_purge_knows_files_that_are_named_for_another_key(etc: Path) -> None:
    """systemd spells a dash in the name of a slice as an escape, or the slice would be within another."""
    rules = [rule(etc, "app-{escaped}.slice", purge=True)]
    names = {"my-app": r"my\x2dapp", "my": "my"}
    elements = [{"name": name, "escaped": escaped} for name, escaped in names.items()]
    execute(
        Request(elements, rules, ["1\n", "2\n"], state_directory=str(etc.parent / "state")), run=Recorder()
    )
    (etc / r"app-a\x2dstranger.slice").write_text("")
    left = Request(elements[1:], rules, ["2\n"], state_directory=str(etc.parent / "state"))
    outcome = execute(left, run=Recorder())
    assert outcome.removed == [rf"{etc}/app-my\x2dapp.slice"]
    assert outcome.strangers == [rf"{etc}/app-a\x2dstranger.slice"]


def test_absent_files_go_in_the_same_transaction_and_come_back_with_it(etc: Path) -> None:
    (etc / "default").symlink_to("nowhere")
    wanted = request(etc, {"a": "1\n"}, absent=[f"{etc}/default", f"{etc}/never-there"], check=["nginx"])
    with pytest.raises(TransactionError, match="'nginx' refused the result"):
        execute(wanted, run=Recorder(refuse=["nginx"]))
    assert (etc / "default").is_symlink()
    assert execute(wanted, run=Recorder()).removed == [f"{etc}/default"]
    assert list(tree(etc)) == ["a.conf"]
    with pytest.raises(TransactionError, match="both installed and absent"):
        execute(request(etc, {"a": "1\n"}, absent=[f"{etc}/a.conf"]), run=Recorder())


def test_a_validator_sees_the_final_name_and_its_siblings_before_anything_changes(etc: Path) -> None:
    seen: list[tuple[list[str], bool]] = []

    def run(argv: Sequence[str]) -> tuple[int, str]:
        seen.append(
            (sorted(path.name for path in Path(argv[1]).parent.iterdir()), (etc / "a.service").exists())
        )
        return 0, ""

    rules = [rule(etc, "{name}.service", validate=("verify", "%s")), rule(etc, "{name}.socket")]
    execute(request(etc, {"a": "1\n"}, rules), run=run)
    assert seen == [(["a.service", "a.socket"], False)]


def test_a_refused_file_stops_all_and_the_message_names_element_file_and_reason(etc: Path) -> None:
    (etc / "a.conf").write_text("old\n")
    with pytest.raises(TransactionError) as refusal:
        execute(
            request(etc, {"a": "1\n", "b": "2\n"}, [rule(etc, validate=("verify", "%s"))]),
            run=Recorder(refuse=["verify"]),
        )
    assert str(refusal.value).splitlines()[:2] == [
        (
            f"a: {etc}/a.conf was refused by 'verify' (exit code 1); nothing was changed, "
            "correct its template or values and run again:"
        ),
        "verify says no",
    ]
    assert f"b: {etc}/b.conf" in str(refusal.value)
    assert tree(etc) == {"a.conf": ("old\n", 0o644)}
    assert litter(etc) == []


def test_sensitive_content_is_in_no_message_and_no_diff(etc: Path) -> None:
    secret = 'KEY="s3cr3t value"\n'

    def quoting(argv: Sequence[str]) -> tuple[int, str]:
        return 1, f"bad line: {secret.strip()}; bad value s3cr3t value"

    hidden = rule(etc, mode=0o600, sensitive=True, purge=True)
    for options in ({"check": ["check"]}, {"apply": [["apply"]]}):
        with pytest.raises(TransactionError) as refusal:
            execute(request(etc, {"a": secret}, [hidden], **options), run=quoting)
        assert "s3cr3t" not in str(refusal.value)
        shutil.rmtree(etc)
        etc.mkdir()
    checked = rule(etc, sensitive=True, validate=("verify", "%s"))
    with pytest.raises(TransactionError, match="withheld, because the file is sensitive"):
        execute(request(etc, {"a": secret}, [checked]), run=quoting)
    assert execute(request(etc, {"a": secret}, [hidden]), run=Recorder()).diff == [
        {"prepared": f"{etc}/a.conf: changes, its content is hidden\n"}
    ]
    purged = execute(request(etc, {}, [hidden]), run=Recorder())
    assert purged.diff == [{"prepared": f"{etc}/a.conf: removed\n"}]


def test_a_file_is_never_wider_than_its_final_mode(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    write = os.write

    def spy(descriptor: int, data: bytes) -> int:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return write(descriptor, data)

    opened: list[int] = []
    real_open = os.open

    def spy_open(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
        if flags & os.O_CREAT and "state" not in str(path):
            opened.append(mode)
        return real_open(path, flags, mode, **options)

    monkeypatch.setattr(os, "write", spy)
    monkeypatch.setattr(os, "open", spy_open)
    earlier = os.umask(0o077)
    try:
        execute(request(etc, {"a": "1\n"}, [rule(etc, mode=0o640)]), run=Recorder())
    finally:
        os.umask(earlier)
    assert opened == [0o640]
    assert modes == [0o640]


def test_a_failed_apply_is_repeated_by_the_next_run(etc: Path) -> None:
    wanted = request(etc, {"a": "1\n"}, apply=[["reload"]])
    with pytest.raises(TransactionError, match="the files are in place and the next run applies them again"):
        execute(wanted, run=Recorder(refuse=["reload"]))
    assert execute(wanted, check_mode=True, run=Recorder()).changed
    run = Recorder()
    outcome = execute(wanted, run=run)
    assert (outcome.changed, outcome.changes, run.calls) == (True, {}, [["reload"]])
    assert not execute(wanted, run=run).changed


def test_an_unmet_expectation_runs_apply_and_must_be_met_then(etc: Path) -> None:
    home = Path(etc, "home")
    wanted = request(
        etc, {"a": "1\n"}, apply=[["tmpfiles"]], expects=[Expectation(f"{home}", ME, MINE, 0o711)]
    )
    made: list[str] = []

    def makes(argv: Sequence[str]) -> tuple[int, str]:
        made.append(argv[0])
        home.mkdir(exist_ok=True)
        home.chmod(0o711)
        return 0, ""

    execute(wanted, run=makes)
    assert not execute(wanted, run=makes).changed
    for disturb in (home.rmdir, lambda: home.chmod(0o777)):
        disturb()
        assert execute(wanted, check_mode=True, run=makes).changed
        assert execute(wanted, run=makes).changed
    assert made == ["tmpfiles"] * 3
    home.rmdir()
    with pytest.raises(TransactionError, match=f"after applying, a: {home} does not exist"):
        execute(wanted, run=Recorder())


def test_the_lock_names_the_reason_when_it_is_not_given_up(etc: Path) -> None:
    state = etc.parent / "state"
    with transaction._alone(str(state)), pytest.raises(TransactionError, match="another run has been"):
        transaction._alone(str(state), patience=0).__enter__()


MUTATING = ("open", "write", "fsync", "link", "rename", "unlink", "mkdir", "fchmod")


@contextlib.contextmanager
def disturbed(at: int, disturbance: Callable[[], None], *, after: bool) -> Iterator[list[int]]:
    """Let the `at`-th call that touches the disk do (or fail to do) its work and then disturb."""
    count = [0]
    originals = {name: getattr(os, name) for name in MUTATING}

    def wrap(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            count[0] += 1
            mine = count[0] == at
            if mine and not after:
                disturbance()
            result = originals[name](*args, **options)
            if mine and after:
                disturbance()
            return result

        return call

    for name in MUTATING:
        setattr(os, name, wrap(name))
    try:
        yield count
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt() -> None:
    raise KeyboardInterrupt


def killed() -> None:
    os._exit(9)


def scene(directory: Path) -> tuple[Request, dict[str, tuple[str, int]]]:
    """Make a host with an old file, a link, a gone element's file and a stranger's; return what is wanted."""
    directory.mkdir()
    execute(
        request(directory, {"a": "old\n", "gone": "gone\n"}, [rule(directory, purge=True)]), run=Recorder()
    )
    (directory / "b.conf").symlink_to("nowhere")
    (directory / "legacy.conf").write_text("by hand\n")
    (directory / "legacy.conf").chmod(0o644)
    (directory / "default").write_text("default\n")
    rules = [rule(directory, purge=True, validate=("verify", "%s")), rule(directory, "all", mode=0o600)]
    wanted = request(
        directory,
        {"a": "new\n", "b": "new\n", "c": "new\n"},
        rules,
        absent=[f"{directory}/default"],
        check=["check"],
        apply=[["apply"]],
    )
    after = dict.fromkeys(("a.conf", "b.conf", "c.conf"), ("new\n", 0o644)) | {
        "all": ("once\n", 0o600),
        "legacy.conf": ("by hand\n", 0o644),
    }
    return wanted, after


def attempt(wanted: Request, run: Recorder) -> Outcome | None:
    try:
        return execute(wanted, run=run)
    except (TransactionError, KeyboardInterrupt):
        return None


@settings(max_examples=150, deadline=None)
@given(at=st.integers(1, 80), disturbance=st.sampled_from([disk_full, interrupt]), after=st.booleans())
def test_whatever_step_fails_all_files_are_old_or_all_are_new(
    at: int, disturbance: Callable[[], None], after: bool
) -> None:
    with tempfile.TemporaryDirectory() as base:
        etc = Path(base, "etc")
        wanted, final = scene(etc)
        before = tree(etc)
        run = Recorder()
        with disturbed(at, disturbance, after=after):
            outcome = attempt(wanted, run)
        assert tree(etc) == (final if outcome or ["apply"] in run.calls else before) or ["check"] in run.calls
        assert tree(etc) in (before, final)
        execute(wanted, run=run)
        assert tree(etc) == final
        assert ["apply"] in run.calls
        assert not execute(wanted, run=run).changed
        assert litter(etc) == []


@settings(max_examples=80, deadline=None)
@given(at=st.integers(1, 80), after=st.booleans())
def test_killed_at_any_instant_the_next_run_completes_applies_and_sweeps(at: int, after: bool) -> None:
    with tempfile.TemporaryDirectory() as base:
        etc = Path(base, "etc")
        wanted, final = scene(etc)
        applied = Path(base, "applied")

        def run(argv: Sequence[str]) -> tuple[int, str]:
            if argv[0] == "apply":
                applied.touch()
            return 0, ""

        child = os.fork()
        if child == 0:
            with disturbed(at, killed, after=after):
                execute(wanted, run=run)
            os._exit(0)
        os.waitpid(child, 0)
        for path in etc.iterdir():
            assert path.name.startswith(".flaskworks-") == path.name.endswith("~")
        outcome = execute(wanted, run=run)
        # Killed between the ledger and the removal, it forgets a file of its own, and says so.
        forgotten = set(outcome.strangers) - {f"{etc}/legacy.conf"}
        assert forgotten <= {f"{etc}/gone.conf"}
        assert tree(etc) == final | ({"gone.conf": ("gone\n", 0o644)} if forgotten else {})
        assert applied.exists()
        assert litter(etc) == []
        assert not execute(wanted, run=run).changed


def test_a_file_that_only_some_elements_need(tmp_path: Path) -> None:
    directory = tmp_path / "etc"
    directory.mkdir()
    rules = [rule(directory, only_with="users", purge=True)]

    def install(elements: list[dict[str, Any]]) -> Outcome:
        contents = [f"{target.element}\n" for target in expand(elements, rules)]
        return execute(
            Request(
                elements=elements, rules=rules, contents=contents, state_directory=str(tmp_path / "state")
            ),
        )

    install([{"name": "a", "users": True}, {"name": "b", "users": False}, {"name": "c"}])
    assert [path.name for path in directory.iterdir()] == ["a.conf"]
    assert install([{"name": "a", "users": []}]).removed == [f"{directory}/a.conf"]
    assert list(directory.iterdir()) == []


def test_a_file_that_is_written_once_depends_on_no_element() -> None:
    with pytest.raises(TransactionError, match="written once"):
        expand([], [Rule("/etc/x", only_with="users")])
