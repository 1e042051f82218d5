"""Files that appear whole or not at all: under SIGKILL, full disks, links, and several writers at once."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from attack import draws

import crossent.files
from crossent.files import Busy, locked, same_place, write_together

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals, modes and flock")

NAMES = ("report.json", "report.html", "model.safetensors")  # in the order in which they are replaced
SOURCE = str(Path(crossent.files.__file__))
# The module alone: what it promises needs no more, and a process starts in a few hundredths of a second.
LOAD = f"""
import importlib.util, json, os, signal, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("files", {SOURCE!r})
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
"""
WRITE = """
def contents(run, size):
    return {Path(folder, name): json.dumps({"run": run, "body": size * "x", "end": True}).encode() for name in names}
folder, names = sys.argv[1], sys.argv[2].split(",")
"""


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a script with arguments; what still runs at the end is killed."""
    pipe = subprocess.PIPE
    with ExitStack() as running:

        def started(script: str, *arguments: object) -> subprocess.Popen[str]:
            command = [sys.executable, "-I", "-S", "-c", LOAD + script, *map(str, arguments)]
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            running.enter_context(process)
            running.callback(process.kill)
            return process

        yield started


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return its exit status and the last line that it wrote to stderr."""
    _, told = process.communicate(timeout=60)
    return process.returncode, (told.strip().splitlines() or [""])[-1]


def say(process: subprocess.Popen[str]) -> str:
    """Return the next line of a process."""
    assert process.stdout
    return process.stdout.readline().strip()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- killed at any moment ------------------------------------------------------------------------------------------

FOR_EVER = """
run = int(sys.argv[3])
while True:
    files.write_together(contents(run, 50_000))
    print(run, flush=True)
    run += 1
"""


@contextmanager
def reading(folder: Path) -> Iterator[list[str]]:
    """Open all files again and again in a thread; the list that it gives holds what was wrong."""
    wrong: list[str] = []
    stop = threading.Event()
    opened = 0

    def read() -> None:
        nonlocal opened
        while not stop.is_set():
            for name in NAMES:
                try:
                    if json.loads((folder / name).read_bytes())["end"] is not True:
                        wrong.append(f"{name} is another file")
                except (OSError, ValueError) as error:
                    wrong.append(f"{name}: {error!r}")
                opened += 1

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        thread.join()
    assert opened > 10


@pytest.mark.attack
def test_a_writer_killed_at_any_moment_leaves_whole_files_in_order_and_no_litter(start: Start, tmp_path: Path) -> None:
    run = 0
    write_together({tmp_path / name: b'{"run": 0, "end": true}' for name in NAMES})
    mixed = 0
    with reading(tmp_path) as wrong:
        for rng in draws(60):
            writer = start(WRITE + FOR_EVER, tmp_path, ",".join(NAMES), run + 1)
            assert int(say(writer)) == run + 1
            parts = names_in(tmp_path) - set(NAMES)
            assert len(parts) <= len(NAMES), "a write removes what killed ones left"
            time.sleep(rng.random() * 0.01)
            writer.kill()
            assert finish(writer)[0] == -signal.SIGKILL
            runs = [json.loads((tmp_path / name).read_bytes())["run"] for name in NAMES]
            assert runs == sorted(runs, reverse=True)
            assert runs[0] - runs[-1] <= 1
            mixed += runs[0] != runs[-1]
            run = runs[0]
    assert wrong == []
    write_together(dict.fromkeys((tmp_path / name for name in NAMES), b""))
    assert names_in(tmp_path) == set(NAMES)


KILLED = """
replace, count = os.replace, [int(sys.argv[3])]
def fatal(*paths):
    if count[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    count[0] -= 1
    replace(*paths)
os.replace = fatal
files.write_together(contents(2, 10))
"""


@pytest.mark.parametrize("replaced", range(len(NAMES)))
def test_a_kill_between_two_replacements_leaves_the_first_ones_new(start: Start, tmp_path: Path, replaced: int) -> None:
    write_together({tmp_path / name: b'{"run": 1}' for name in NAMES})
    assert finish(start(WRITE + KILLED, tmp_path, ",".join(NAMES), replaced))[0] == -signal.SIGKILL
    runs = [json.loads((tmp_path / name).read_bytes())["run"] for name in NAMES]
    assert runs == [2] * replaced + [1] * (len(NAMES) - replaced)
    assert len(names_in(tmp_path)) == len(NAMES) + len(NAMES) - replaced
    write_together({tmp_path / "another": b""})
    assert names_in(tmp_path) == {*NAMES, "another"}


def test_ctrl_c_between_two_replacements_waits_until_the_set_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, replaced = os.replace, []

    def interrupted(*paths: Path) -> None:
        replace(*paths)
        replaced.append(paths)
        if len(replaced) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_together({tmp_path / name: b"newer" for name in NAMES})
    assert {(tmp_path / name).read_bytes() for name in NAMES} == {b"newer"}
    assert names_in(tmp_path) == set(NAMES)


def test_all_is_on_the_disk_before_the_first_replacement_and_the_names_after_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flushed(file: int) -> None:
        fsync(file)
        done.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else f"{os.fstat(file).st_size} bytes")

    def replaced(source: Path, target: Path) -> None:
        replace(source, target)
        done.append(target.name)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", replaced)
    contents = [b"1234", lambda path: path.write_bytes(b"12345"), b"123456"]
    write_together(dict(zip((tmp_path / "new" / name for name in NAMES), contents, strict=True)))
    assert done == ["folder", "4 bytes", "5 bytes", "6 bytes", *NAMES, "folder"]


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize("where", ["open", "write", "fsync", "content"])
@pytest.mark.parametrize("failing", NAMES)
def test_an_error_before_the_first_replacement_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, where: str, is_new: bool
) -> None:
    folder = tmp_path / "deep" / "out"
    if not is_new:
        folder.mkdir(parents=True)
        for name in NAMES:
            (folder / name).write_bytes(b"older")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "another name")

    def counted(function: str) -> None:
        """Let a function of the module fail for the file `failing`."""
        whole = getattr(os, function)
        calls: list[object] = []

        def called(first: object, *rest: object) -> object:
            if isinstance(first, int):
                is_part = stat.S_ISREG(os.fstat(first).st_mode)
            else:
                is_part = str(first).endswith("crossent-part")
            if is_part:
                calls.append(first)
                if len(calls) == NAMES.index(failing) + 1:
                    fail()
            return whole(first, *rest)

        monkeypatch.setattr(os, function, called)

    contents: dict[Path, crossent.files.Content] = {folder / name: b"newer" for name in NAMES}
    if where in ("content", "write"):
        contents[folder / failing] = fail if where == "content" else _Full()  # type: ignore[dict-item]
    else:
        counted(where)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_together(contents)
    assert caught.value.filename == str(folder / failing)
    if is_new:
        assert names_in(tmp_path) == set()
    else:
        assert names_in(folder) == set(NAMES)
        assert {(folder / name).read_bytes() for name in NAMES} == {b"older"}


class _Full:
    """A content that fails after its first bytes."""

    def __call__(self, path: Path) -> None:
        path.write_bytes(b"new")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
files.write_together(contents(2, 50_000))
"""
UNPRIVILEGED = """
os.chmod(folder, int(sys.argv[3], 8))
if os.getuid() == 0:
    os.setuid(65534)
files.write_together(contents(2, 10))
"""


@pytest.mark.parametrize(
    ("script", "mode", "told"),
    [(LIMITED, "", "File too large"), (UNPRIVILEGED, "555", "Permission denied"), (UNPRIVILEGED, "333", "")],
)
def test_a_limit_and_a_missing_permission_leave_the_older_files(
    start: Start, script: str, mode: str, told: str
) -> None:
    """In a folder that may be written but not be read, what may be done is done."""
    with tempfile.TemporaryDirectory() as base:  # which, unlike pytest's, another user may enter
        folder = Path(base, "out")
        os.chmod(base, 0o755)
        write_together({folder / name: b"older" for name in NAMES})
        status, line = finish(start(WRITE + script, folder, ",".join(NAMES), mode))
        assert (status == 1) == bool(told)
        assert told in line
        folder.chmod(0o755)
        assert names_in(folder) == set(NAMES)
        assert ({(folder / name).read_bytes() for name in NAMES} == {b"older"}) == bool(told)


def test_an_error_of_a_replacement_names_the_file(tmp_path: Path) -> None:
    (tmp_path / NAMES[1]).mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        write_together({tmp_path / name: b"newer" for name in NAMES})
    assert caught.value.filename == str(tmp_path / NAMES[1])
    assert names_in(tmp_path) == {NAMES[0], NAMES[1]}  # and the others are not there


# -- links, modes, leftovers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["symbolic", "dangling", "hard"])
def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path, kind: str) -> None:
    other, path = tmp_path / "other", tmp_path / "out" / "p.csv"
    path.parent.mkdir()
    if kind != "dangling":
        other.write_bytes(b"precious")
    if kind == "hard":
        os.link(other, path)
    else:
        path.symlink_to(other)
    write_together({path: b"newer"})
    assert path.read_bytes() == b"newer"
    assert not path.is_symlink()
    assert other.exists() == (kind != "dangling")
    assert not other.exists() or other.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["symbolic", "file"])
def test_what_lies_at_the_name_of_a_part_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    drawn = iter(["0" * 16, "1" * 16])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(drawn))
    part = tmp_path / f".p.csv.{'0' * 16}.crossent-part"
    if kind == "symbolic":
        part.symlink_to(other)
    else:
        monkeypatch.setattr(crossent.files, "_remove_leftovers", lambda folder: None)
        part.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        write_together({tmp_path / "p.csv": b"newer"})
    assert other.read_bytes() == part.read_bytes() == b"precious"


def test_names_of_parts_are_drawn(tmp_path: Path) -> None:
    seen = set()
    for _ in range(20):
        write_together({tmp_path / "p": lambda path: (path.write_bytes(b""), seen.add(path.name))})  # type: ignore[arg-type, func-returns-value]
    assert len(seen) == 20


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_of_the_umask_and_another_keeps_its_own(tmp_path: Path, umask: int) -> None:
    def mode(name: str) -> int:
        return stat.S_IMODE((tmp_path / name).stat().st_mode)

    modes = (0o600, 0o640, 0o664, 0o444, 0o777)
    for kept in modes:
        (tmp_path / f"{kept:o}").write_bytes(b"older")
        (tmp_path / f"{kept:o}").chmod(kept)
    seen = []
    before = os.umask(umask)
    try:
        write_together({tmp_path / "new": b""})
        for kept in modes:
            write_together({tmp_path / f"{kept:o}": lambda path: seen.append(stat.S_IMODE(path.stat().st_mode))})
    finally:
        os.umask(before)
    assert mode("new") == 0o666 & ~umask
    assert [mode(f"{kept:o}") for kept in modes] == list(modes)
    # While a file is written, nobody may read it who may not read it afterwards.
    assert all(during & ~kept & 0o077 == 0 for during, kept in zip(seen, modes, strict=True))


HOLD = """
def content(path):
    print(path.name, flush=True)
    time.sleep(60)
files.write_together({Path(folder, names[0]): content})
"""


def test_leftovers_of_the_dead_are_removed_and_nothing_else(start: Start, tmp_path: Path) -> None:
    living, dying = (start(WRITE + HOLD, tmp_path, f"{name},") for name in ("living", "dying"))
    kept, gone = say(living), say(dying)
    others = {".p.csv.crossent-part", f"p.csv.{'0' * 16}.crossent-part", f".p.csv.{'0' * 16}.crossent-parts", "p"}
    for name in others:
        (tmp_path / name).write_bytes(b"")
    link = tmp_path / f".link.{'0' * 16}.crossent-part"
    link.symlink_to("p")
    os.mkfifo(tmp_path / f".pipe.{'0' * 16}.crossent-part")
    dying.kill()
    dying.wait()
    expected = names_in(tmp_path) - {gone}
    assert kept in expected
    write_together({tmp_path / "p": b""})
    assert names_in(tmp_path) == expected


# -- several writers -----------------------------------------------------------------------------------------------

WORK = """
with files.locked(Path(folder, names[0])):
    print("working", flush=True)
    sys.stdin.readline()
"""


def test_one_process_at_a_time_and_a_killed_one_frees_its_place(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "new" / "p"
    first = start(WRITE + WORK, path.parent, "p,")
    assert say(first) == "working"
    status, line = finish(start(WRITE + WORK, path.parent, "p,"))
    assert status == 1
    assert "another process works on it" in line
    with pytest.raises(Busy, match="another process works on it"), locked(path):
        pass
    with locked(path.with_name("other")):
        pass
    first.kill()
    finish(first)
    with locked(path):
        with pytest.raises(Busy), locked(path):  # nor may the same process
            pass
        assert names_in(path.parent) == {".p.crossent-lock"}
    assert names_in(tmp_path) == {"new"}
    assert names_in(tmp_path / "new") == set()


def test_a_lock_that_ends_leaves_nothing(tmp_path: Path) -> None:
    for error in (None, KeyboardInterrupt):
        try:
            with locked(tmp_path / "deep" / "new" / "p"):
                if error:
                    raise error
        except KeyboardInterrupt:
            pass
        assert names_in(tmp_path) == set()
    with locked(tmp_path / "new" / "p"):
        write_together({tmp_path / "new" / "p": b""})
    assert names_in(tmp_path / "new") == {"p"}


def test_a_lock_is_had_by_one_of_many(start: Start, tmp_path: Path) -> None:
    """Threads that take and leave one lock as fast as they can: never two have it, and all get it sometimes."""
    inside: list[int] = []
    taken = [0] * 4
    wrong: list[str] = []

    def work(which: int) -> None:
        while taken[which] < 50 and not wrong:
            try:
                with locked(tmp_path / "new" / "p"):
                    inside.append(which)
                    if inside != [which]:
                        wrong.append(f"{inside} at once")
                    inside.remove(which)
                    taken[which] += 1
            except Busy:
                pass

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert taken == [50] * 4
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # but the folder may stay


def test_writers_at_once_leave_whole_files_of_one_of_them(start: Start, tmp_path: Path) -> None:
    write_together({tmp_path / name: b'{"run": 0, "end": true}' for name in NAMES})
    with reading(tmp_path) as wrong:
        writers = [start(WRITE + FOR_EVER, tmp_path, ",".join(NAMES), 1000 * k) for k in (1, 2)]
        for _ in range(20):
            for writer in writers:
                say(writer)
        for writer in writers:
            writer.kill()
            finish(writer)
    assert wrong == []


def test_without_flock_files_are_still_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossent.files, "fcntl", None)
    leftover = tmp_path / f".p.{'0' * 16}.crossent-part"
    leftover.write_bytes(b"")
    with locked(tmp_path / "p"), locked(tmp_path / "p"):
        write_together({tmp_path / "p": b"newer"})
    assert (tmp_path / "p").read_bytes() == b"newer"
    assert names_in(tmp_path) == {"p", leftover.name}


# -- one place, two names ------------------------------------------------------------------------------------------


def test_one_place_is_known_by_every_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    Path("a/t.csv").write_bytes(b"")
    Path("b.csv").symlink_to("a/t.csv")
    Path("c").symlink_to("a")
    os.link("a/t.csv", "d.csv")
    names = ["a/t.csv", "./a/../a/t.csv", "b.csv", "c/t.csv", "d.csv", str(tmp_path / "a" / "t.csv")]
    for one in names:
        for other in names:
            assert same_place(one, other), (one, other)
    free = ["a/new.csv", "c/new.csv", "a/NEW.csv", "a/../c/New.csv"]
    for one in free:
        for other in free:
            assert same_place(one, other), (one, other)
        for other in names:
            assert not same_place(one, other), (one, other)
    assert same_place("e\N{COMBINING ACUTE ACCENT}", "\N{LATIN SMALL LETTER E WITH ACUTE}")
    assert not same_place("a/new.csv", "new.csv")
    Path("a/T.csv").write_bytes(b"")
    assert same_place("a/T.csv", "a/t.csv") == os.path.samefile("a/T.csv", "a/t.csv")
