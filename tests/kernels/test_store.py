"""Machine code on disk: damage, edits, folders that others can write to, and several processes at once.

Whatever is found there, results are right, and it costs a compilation at most.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
from damage import damages

numba = pytest.importorskip("numba")

from crossent.kernels.numba.compile import KeptCode  # noqa: E402 (it imports Numba)
from crossent.kernels.numba.store import Store  # noqa: E402

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no modes of files")

TINY = "def tiny(x):\n    return 3 * x + 1\n"
EDITED = TINY.replace("3", "5")

# Prints a result, whether its machine code was found, and every notice.
PROCESS = """
import logging, sys
from pathlib import Path
import numba
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
logging.getLogger("numba").setLevel(logging.WARNING)
folder, sources = map(Path, sys.argv[1:])
sys.path.insert(0, str(sources))
import tiny
from crossent.kernels.numba.compile import KeptCode
from crossent.kernels.numba.store import Store
store = Store(folder, sources)
compiled = numba.njit(tiny.tiny)
compiled._cache = KeptCode(tiny.tiny, store)
print(compiled(2), "found" if compiled.stats.cache_hits else "compiled")
"""


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "tiny.py").write_text(TINY)
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kept"


def start(folder, sources, *options, code=PROCESS):
    command = [sys.executable, *options, "-c", code, str(folder), str(sources)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(folder, sources, *options, code=PROCESS):
    """What a fresh process prints."""
    process = start(folder, sources, *options, code=code)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out.splitlines()


def compute(folder, sources, x=2):
    """The same in this process, with nothing in memory: the result and whether its machine code was found."""
    namespace: dict = {"__name__": "crossent.kernels.numba.compile"}  # a module that can be imported
    exec((sources / "tiny.py").read_text(), namespace)
    compiled = numba.njit(namespace["tiny"])
    compiled._cache = KeptCode(namespace["tiny"], Store(folder, sources))
    return compiled(x), "found" if compiled.stats.cache_hits else "compiled"


def the_file(folder):
    (path,) = folder.glob("*.kernel")
    return path


def test_machine_code_is_kept(folder, sources, caplog):
    caplog.set_level(logging.INFO, "crossent")
    assert compute(folder, sources) == (7, "compiled")
    assert compute(folder, sources) == (7, "found")
    assert compute(folder, sources, 2.0) == (7.0, "compiled")
    assert compute(folder, sources, 2.0) == (7.0, "found")
    assert compute(folder, sources) == (7, "found")
    assert caplog.messages == []


def drawn_damages(content, count):
    return (damaged for _, damaged in damages(content, count) if damaged != content)


@pytest.mark.attack
def test_what_is_damaged_is_not_loaded(folder, sources):
    store = Store(folder, sources)
    name = store.name("tiny", "int64")
    payload = np.random.default_rng(16).bytes(5000)
    store.save(name, payload)
    assert store.load(name) == payload
    content = (folder / name).read_bytes()
    for damaged in chain((b"", content[:31], content[:32]), drawn_damages(content, 2000)):
        (folder / name).write_bytes(damaged)
        assert store.load(name) is None
    other = store.name("tiny", "float64")
    (folder / other).write_bytes(content)  # whole, but another's
    assert store.load(other) is None


@POSIX
def test_pipes_links_and_folders_are_not_loaded(folder, sources):
    store = Store(folder, sources)
    name = store.name("tiny", "int64")
    store.save(name, b"code")
    path = (folder / name).rename(folder / "elsewhere")
    for make in (os.mkfifo, lambda place: os.symlink(path, place), os.mkdir):
        make(folder / name)
        assert store.load(name) is None
        os.rmdir(folder / name) if (folder / name).is_dir() else os.unlink(folder / name)
    path.rename(folder / name)
    assert store.load(name) == b"code"


@pytest.mark.attack
def test_damage_costs_one_compilation(folder, sources, caplog):
    caplog.set_level(logging.INFO, "crossent")
    assert compute(folder, sources) == (7, "compiled")
    content = the_file(folder).read_bytes()
    for damaged in drawn_damages(content, 10):
        the_file(folder).write_bytes(damaged)
        assert compute(folder, sources) == (7, "compiled")
        assert caplog.messages == [f"a kept kernel is damaged and is compiled again: {the_file(folder).name}"]
        caplog.clear()
        assert compute(folder, sources) == (7, "found")
        assert caplog.messages == []


SCAN = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
logging.getLogger("numba").setLevel(logging.WARNING)
import numpy as np
from crossent.kernels import cpu
out = np.empty(4, np.int64)
print(cpu.scan_labels(np.array([2, 0, -100, 1]), 3, -100, out), out)
"""


def test_damaged_files_of_a_kernel_are_survived_by_fresh_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("CROSSENT_DISABLE_NUMBA", raising=False)
    right = "(-1, 3) [ 2  0 -1  1]"
    out = run("", "", code=SCAN)
    assert (len(out), out[-1]) == (2, right)
    assert run("", "", code=SCAN) == [right]
    rng = np.random.default_rng(8)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        content = bytearray(path.read_bytes())
        for _ in range(20):
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        assert run("", "", code=SCAN)[-1] == right
        assert run("", "", code=SCAN) == [right]


def rewrite(path, text):
    """Edit a file so that neither its time nor its size show it."""
    status = path.stat()
    assert len(text) == status.st_size
    path.write_text(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_edit_that_keeps_time_and_size_gives_new_code(folder, sources):
    assert compute(folder, sources) == (7, "compiled")
    rewrite(sources / "tiny.py", EDITED)
    assert compute(folder, sources) == (11, "compiled")
    assert len(list(folder.iterdir())) == 1  # the machine code of the sources before is gone


def test_an_edit_that_python_itself_overlooks_leaves_no_wrong_code(folder, sources, monkeypatch):
    """Python goes by time and size, and takes its old bytecode: what is compiled from that must not be kept."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert run(folder, sources) == ["7 compiled"]
    rewrite(sources / "tiny.py", EDITED)
    notice, result = run(folder, sources)
    assert "Python's own file of bytecode does not match" in notice
    assert result == "7 compiled"
    os.utime(sources / "tiny.py")
    assert compute(folder, sources) == (11, "compiled")
    assert compute(folder, sources) == (11, "found")


def test_sources_that_were_edited_after_their_import_are_not_kept_for(folder, sources, caplog):
    caplog.set_level(logging.INFO, "crossent")
    store = Store(folder, sources)
    (sources / "tiny.py").write_text(EDITED)
    store.save(store.name("tiny", "int64"), b"code")
    assert "edited after they were imported" in caplog.text
    assert not folder.exists()


def test_machine_code_is_found_in_a_copy(folder, sources, tmp_path):
    assert compute(folder, sources) == (7, "compiled")
    shutil.copytree(folder, tmp_path / "copy" / "kept")
    shutil.copytree(sources, tmp_path / "copy" / "sources")
    os.utime(tmp_path / "copy" / "sources" / "tiny.py", (1, 1))
    (tmp_path / "copy" / "kept").chmod(0o700)
    assert compute(tmp_path / "copy" / "kept", tmp_path / "copy" / "sources") == (7, "found")


def test_a_folder_without_sources_is_refused(folder, tmp_path):
    with pytest.raises(RuntimeError, match="no Python files"):
        Store(folder, tmp_path)


@POSIX
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_others_can_write_to_is_not_loaded(folder, sources, caplog, what, mode):
    caplog.set_level(logging.INFO, "crossent")
    assert compute(folder, sources) == (7, "compiled")
    place = folder if what == "folder" else the_file(folder)
    place.chmod(mode)
    assert compute(folder, sources) == (7, "compiled")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"with mode {mode:04o}" in caplog.text
    if what == "folder":
        place.chmod(0o700)
    assert compute(folder, sources) == (7, "found")  # a file is put in the place of the one that others could write to


@POSIX
@pytest.mark.skipif(os.name != "nt" and os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_belongs_to_others_is_not_loaded(folder, sources, caplog, what):
    caplog.set_level(logging.INFO, "crossent")
    assert compute(folder, sources) == (7, "compiled")
    os.chown(folder if what == "folder" else the_file(folder), 54321, -1)
    assert compute(folder, sources) == (7, "compiled")
    assert "belongs to user 54321" in caplog.text
    assert len(caplog.records) == 1


@POSIX
def test_a_umask_that_lets_the_group_write_does_not_matter(folder, sources):
    before = os.umask(0o002)
    try:
        assert compute(folder, sources) == (7, "compiled")
    finally:
        os.umask(before)
    assert compute(folder, sources) == (7, "found")


def test_processes_that_compile_at_once(folder, sources):
    processes = [start(folder, sources) for _ in range(3)]
    for process in processes:
        out, _ = process.communicate(timeout=300)
        assert out in ("7 compiled\n", "7 found\n")
    assert run(folder, sources) == ["7 found"]
    assert not list(folder.glob("*.tmp"))


def test_stores_that_save_in_turn_do_not_lose_each_others_files(folder, sources):
    stores = [Store(folder, sources) for _ in range(2)]
    names = [stores[0].name("tiny", made_from) for made_from in ("float32", "float64")]
    for store, name in zip(stores, names, strict=True):
        store.save(name, name.encode())
    assert [store.load(name) for store in stores for name in names] == [name.encode() for name in names] * 2


def test_only_what_is_old_is_removed(folder, sources):
    before = Store(folder, sources)
    before.save(before.name("tiny", "int64"), b"code")
    (folder / "somebody's.kernel.tmp").write_bytes(b"being written")
    (folder / "abandoned.kernel.tmp").write_bytes(b"by a process that was killed")
    os.utime(folder / "abandoned.kernel.tmp", (1, 1))
    (folder / "README").write_text("not ours")
    Store(folder, sources).save(before.name("tiny", "float64"), b"code")
    assert len(list(folder.glob("tiny.*.kernel"))) == 2
    (sources / "tiny.py").write_text(EDITED)
    after = Store(folder, sources)
    after.save(after.name("tiny", "int64"), b"code")
    names = {path.name for path in folder.iterdir()}
    assert names == {after.name("tiny", "int64"), "somebody's.kernel.tmp", "README"}


def test_a_place_that_cannot_be_written_to_is_survived(tmp_path, sources, caplog):
    caplog.set_level(logging.INFO, "crossent")
    (tmp_path / "file").touch()  # where a folder would have to be: not even root can write there
    store = Store(tmp_path / "file" / "kept", sources)
    for made_from in ("int64", "float64"):
        name = store.name("tiny", made_from)
        assert store.load(name) is None
        store.save(name, b"code")
    assert sum("could not be kept" in message for message in caplog.messages) == 1


@POSIX
def test_a_full_disk_is_survived(folder, sources):
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    notice, result = run(folder, sources, "-B", code=limited + PROCESS)
    assert "could not be kept on disk" in notice
    assert "too large" in notice
    assert result == "7 compiled"
    assert list(folder.iterdir()) == []
