from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.support.store_writer import make_plan, make_rows
from vggfeat.errors import (
    DamagedStoreError,
    IncompleteStoreError,
    PublishError,
    StaleStoreError,
    StoreNotFoundError,
    VggfeatError,
)
from vggfeat.files import publish
from vggfeat.store import hdf5, writer
from vggfeat.store.layout import StorePlan
from vggfeat.store.reader import DescriptorStore, adopt
from vggfeat.store.reuse import Donors, possible_donors
from vggfeat.store.rows import Status
from vggfeat.store.writer import ShardFolder, claims, shard_rows

ROOT = Path(__file__).resolve().parents[2]


def fill(folder: Path, plan: StorePlan) -> Path:
    shards = ShardFolder(folder, plan)
    for number, _ in claims([shards]):
        shards.commit(number, make_rows(plan, number), {})
    return shards.assemble()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    plan = make_plan(rows=100, shard_rows=8)
    path = fill(tmp_path / "s", plan)
    expected = [make_rows(plan, k) for k in range(plan.shards)]
    with DescriptorStore.open(path) as store:
        rows = store.read()
        assert store.verified
        assert store.fingerprint == plan.fingerprint
        assert store.recipe == plan.recipe
        assert store.scales == plan.scales
    assert rows.image_id == tuple(i for part in expected for i in part.image_id)
    for name in ("descriptors", "norms", "image_size", "image_sha256", "status"):
        together = np.concatenate([getattr(part, name) for part in expected])
        assert getattr(rows, name).tobytes() == together.tobytes(), name
    assert rows.errors == {i: r for part in expected for i, r in part.errors.items()}


def test_plain_h5py_reads_it(tmp_path: Path) -> None:
    plan = make_plan(rows=70, shard_rows=8)
    with h5py.File(fill(tmp_path / "s", plan), "r") as file:
        assert file["image_id"][3].decode() == "img/00003ü.jpg"
        assert file["descriptors"].shape == (70, 2, 16)
        assert file["descriptors"].fletcher32
        assert file["scales"][:].tolist() == [256, 384]
        assert json.loads(file.attrs["recipe"]) == plan.recipe
        assert file.attrs["weights_sha256"].decode() == "w"
        assert {file[name].dtype.kind for name in file} <= {"S", "f", "i", "u"}


def test_rows_come_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    plan = make_plan(rows=300, shard_rows=8)
    path = fill(tmp_path / "s", plan)
    with DescriptorStore.open(path) as store:
        everything = store.read()
        order = np.random.default_rng(0).permutation(300)[:117]
        some = store.read([store.ids[i] for i in order], [384])
        assert np.array_equal(some.norms, everything.norms[order][:, 1:], equal_nan=True)
        assert np.array_equal(
            some.descriptors, everything.descriptors[order][:, 1:], equal_nan=True
        )
        with pytest.raises(IncompleteStoreError, match=r"lacks 1 of 2 images, the first is 'x'"):
            store.read([store.ids[0], "x"])
        with pytest.raises(IncompleteStoreError, match="not 512"):
            store.read(scales=[512])


@pytest.mark.parametrize(
    ("seconds", "row_bytes", "rows"),
    [
        (3.35, 80_000, 9),
        (100, 80_000, 8),
        (0.018, 2048, 1024),
        (0.1, 2048, 300),
        (0.01, 320_000, 200),
    ],
)
def test_shards_are_half_a_minute_or_64_megabytes(
    seconds: float, row_bytes: int, rows: int
) -> None:
    assert shard_rows(seconds, row_bytes) == pytest.approx(rows, abs=1)


def test_the_same_rows_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    plan = make_plan(rows=90, shard_rows=8)
    first = fill(tmp_path / "a", plan)
    shards = ShardFolder(tmp_path / "b", plan)
    for number in reversed(range(plan.shards)):
        shards.commit(number, make_rows(plan, number), {"device": "other"})
    assert digest(shards.assemble()) == digest(first)
    assert (tmp_path / "a/descriptors.json").read_bytes() == (
        tmp_path / "b/descriptors.json"
    ).read_bytes()


def test_the_first_writer_wins_even_when_results_differ(tmp_path: Path) -> None:
    plan = make_plan(rows=8, shard_rows=8)
    one, two = ShardFolder(tmp_path / "s", plan), ShardFolder(tmp_path / "s", plan)
    rows = make_rows(plan, 0)
    other = replace(rows, norms=rows.norms + 1)
    assert one.commit(0, rows, {})
    assert not two.commit(0, other, {})
    with DescriptorStore.open(two.assemble()) as store:
        assert np.array_equal(store.read().norms, rows.norms, equal_nan=True)


def test_two_writers_never_claim_the_same_shard(tmp_path: Path) -> None:
    plan = make_plan(rows=80, shard_rows=8)
    one, two = ShardFolder(tmp_path / "s", plan), ShardFolder(tmp_path / "s", plan)
    first, second = claims([one]), claims([two])
    each = [next(first), next(second), next(first), next(second), *second, *first]
    claimed = [number for number, _ in each]
    assert sorted(claimed) == list(range(10))
    assert list(claims([one])) == []
    del second
    two._release(claimed[1])  # what the end of a process does
    assert list(claims([one])) == [(claimed[1], [one])]


def test_stores_that_are_made_together_are_claimed_shard_by_shard(tmp_path: Path) -> None:
    """Where one of them has a shard already, or another process works on it, the others do not."""
    plan = make_plan(rows=24, shard_rows=8)
    one, two = ShardFolder(tmp_path / "1", plan), ShardFolder(tmp_path / "2", plan)
    elsewhere = ShardFolder(tmp_path / "1", plan)
    assert elsewhere.claim(0)
    assert two.claim(2)
    assert two.commit(2, make_rows(plan, 2), {})
    found = dict(claims([one, two]))
    assert found == {0: [two], 1: [one, two], 2: [one]}
    assert list(claims([elsewhere])) == []
    for number in range(3):
        elsewhere.commit(number, make_rows(plan, number), {})
    elsewhere.assemble()
    assert list(claims([elsewhere, ShardFolder(tmp_path / "1", plan)])) == []
    assert not (tmp_path / "1" / "shards").exists()  # not even a lock


def test_claims_stop_when_asked(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path / "s", make_plan(rows=80, shard_rows=8))
    asked: list[int] = []
    for number, _ in claims([shards], lambda: len(asked) >= 3):
        asked.append(number)
    assert len(asked) == 3


def test_another_process_obeys_the_first_plan(tmp_path: Path) -> None:
    plan = make_plan(rows=80, shard_rows=8)
    ShardFolder(tmp_path / "s", plan)
    later = replace(plan, shard_rows=16, execution={"threads": 64})
    assert ShardFolder(tmp_path / "s", later).plan == plan


def test_a_folder_of_another_recipe_is_refused_with_the_differences(tmp_path: Path) -> None:
    plan = make_plan(rows=8, shard_rows=8)
    ShardFolder(tmp_path / "s", plan)
    other = replace(
        plan, fingerprint="other", recipe={**plan.recipe, "tap": "fc6"}, scales=(256, 512)
    )
    with pytest.raises(StaleStoreError, match=r"tap 'fc7' there, 'fc6' here; scales \(256, 384\)"):
        ShardFolder(tmp_path / "s", other)


def test_an_incomplete_store_is_not_assembled(tmp_path: Path) -> None:
    plan = make_plan(rows=80, shard_rows=8)
    shards = ShardFolder(tmp_path / "s", plan)
    shards.commit(3, make_rows(plan, 3), {})
    with pytest.raises(IncompleteStoreError, match="lacks 9 of 10 shards"):
        shards.assemble()
    with pytest.raises(StoreNotFoundError, match="vggfeat extract"):
        DescriptorStore.open(tmp_path / "s")


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_shard_with_a_changed_byte_is_found_and_only_it_is_lost(
    tmp_path: Path, where: str
) -> None:
    plan = make_plan(rows=80, shard_rows=8)
    shards = ShardFolder(tmp_path / "s", plan)
    for number, _ in claims([shards]):
        shards.commit(number, make_rows(plan, number), {})
    victim = next((tmp_path / "s/shards/000").glob("part-000004-*.h5"))
    content = bytearray(victim.read_bytes())
    content[{"first": 0, "middle": len(content) // 2, "last": -1}[where]] ^= 1
    victim.write_bytes(content)
    with pytest.raises(DamagedStoreError, match=r"part-000004.*Remove '.*part-000004.json'"):
        shards.assemble()
    assert not (tmp_path / "s/descriptors.h5").exists()
    (tmp_path / "s/shards/000/part-000004.json").unlink()
    assert shards.pending() == [4]
    assert digest(fill(tmp_path / "s", plan)) == digest(fill(tmp_path / "quiet", plan))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"file": "x"', b'{"file": "../../x"}'])
def test_a_record_that_makes_no_sense_is_damage(tmp_path: Path, content: bytes) -> None:
    plan = make_plan(rows=16, shard_rows=8)
    shards = ShardFolder(tmp_path / "s", plan)
    for number, _ in claims([shards]):
        shards.commit(number, make_rows(plan, number), {})
    (tmp_path / "s/shards/000/part-000001.json").write_bytes(content)
    with pytest.raises(DamagedStoreError, match=r"part-000001\.json"):
        shards.assemble()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"rows": 3}', b"[]"])
def test_a_plan_that_makes_no_sense_is_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s/plan.json").write_bytes(content)
    with pytest.raises(DamagedStoreError, match=r"plan.json"):
        ShardFolder(tmp_path / "s", make_plan(rows=8, shard_rows=8))


@pytest.mark.parametrize("restore_time", [False, True])
def test_a_changed_byte_of_a_complete_store_is_found(tmp_path: Path, restore_time: bool) -> None:
    path = fill(tmp_path / "s", make_plan(rows=80, shard_rows=8))
    DescriptorStore.open(path).close()
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 4]))
    if restore_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DamagedStoreError, match="SHA-256 is not that of its record"):
        DescriptorStore.open(path)


def test_a_store_cut_short_is_found(tmp_path: Path) -> None:
    path = fill(tmp_path / "s", make_plan(rows=80, shard_rows=8))
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(DamagedStoreError, match="its record says"):
        DescriptorStore.open(path)


def test_a_store_moved_elsewhere_is_still_sound(tmp_path: Path) -> None:
    path = fill(tmp_path / "s", make_plan(rows=80, shard_rows=8))
    shutil.copytree(path.parent, tmp_path / "copy")
    with DescriptorStore.open(tmp_path / "copy") as store:
        assert store.verified
        assert store.verify().faults == ()


def test_a_store_without_its_record_is_unverified_and_can_be_adopted(tmp_path: Path) -> None:
    plan = make_plan(rows=80, shard_rows=8)
    path = fill(tmp_path / "s", plan)
    path.with_name("descriptors.json").unlink()
    with DescriptorStore.open(path) as store:
        assert not store.verified
        assert "unverified" in str(store.summary()["bytes"])
    assert not adopt(path, "another fingerprint")
    assert adopt(path, plan.fingerprint)
    with DescriptorStore.open(path) as store:
        assert store.verified


def test_a_damaged_store_without_its_record_is_not_adopted(tmp_path: Path) -> None:
    plan = make_plan(rows=80, shard_rows=8)
    path = fill(tmp_path / "s", plan)
    path.with_name("descriptors.json").unlink()
    content = bytearray(path.read_bytes())
    content[content.find(make_rows(plan, 0).descriptors.tobytes()[:64])] ^= 1
    path.write_bytes(content)
    assert not adopt(path, plan.fingerprint)


def test_verify_finds_rows_that_contradict_themselves(tmp_path: Path) -> None:
    plan = make_plan(rows=8, shard_rows=8)
    shards = ShardFolder(tmp_path / "s", plan)
    rows = make_rows(plan, 0)
    shards.commit(0, replace(rows, descriptors=rows.descriptors * 2), {})
    with DescriptorStore.open(shards.assemble()) as store:
        assert "contradict" in store.verify().faults[0]


def test_verify_counts(tmp_path: Path) -> None:
    plan = make_plan(rows=80, shard_rows=8)
    with DescriptorStore.open(fill(tmp_path / "s", plan)) as store:
        found = store.verify()
        assert (found.rows, found.unreadable, found.zero) == (80, 2, 0)
        assert found.faults == ()
        assert store.image_summary("img/00027ü.jpg")["status"] == "unreadable"
        assert store.image_summary("img/00027ü.jpg")["reason"] == "it is empty"
        assert (store.statuses() == Status.UNREADABLE).sum() == 2


def hostile(path: Path, kind: str, good: Path) -> None:
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        shape = file["descriptors"].shape
        del file["descriptors"]
        if kind == "external storage":
            file.create_dataset("descriptors", shape, "f4", external=[("/etc/passwd", 0, 4000)])
        elif kind == "external link":
            file["descriptors"] = h5py.ExternalLink("/etc/passwd", "/x")
        elif kind == "soft link":
            file["descriptors"] = h5py.SoftLink("/norms")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource("other.h5", "x", shape)
            file.create_virtual_dataset("descriptors", layout)
        elif kind == "objects":
            file.create_dataset("descriptors", shape, h5py.string_dtype())
        elif kind == "filter":
            file.create_dataset("descriptors", shape, "f4", compression="gzip")
        elif kind == "short":
            file.create_dataset("descriptors", (1, *shape[1:]), "f4")


@pytest.mark.parametrize(
    "kind",
    [
        "external storage",
        "external link",
        "soft link",
        "virtual",
        "objects",
        "filter",
        "short",
        "none",
    ],
)
def test_what_no_store_of_ours_has_is_refused(tmp_path: Path, kind: str) -> None:
    good = fill(tmp_path / "s", make_plan(rows=8, shard_rows=8))
    path = tmp_path / "foreign.h5"
    hostile(path, kind, good)
    with pytest.raises(DamagedStoreError, match="'descriptors'"):
        DescriptorStore.open(path)


def test_a_text_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_text("hello")
    with pytest.raises(DamagedStoreError, match=r"x.h5' is no HDF5 file.*Check the path"):
        DescriptorStore.open(tmp_path / "x.h5")


def test_a_store_opens_beside_plain_h5py_in_either_order(tmp_path: Path) -> None:
    path = fill(tmp_path / "s", make_plan(rows=8, shard_rows=8))
    with h5py.File(path) as plain, DescriptorStore.open(path) as store:
        assert len(plain["image_id"]) == len(store)
    with DescriptorStore.open(path) as store, h5py.File(path) as plain:
        assert len(plain["image_id"]) == len(store)


def test_an_id_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    path = fill(tmp_path / "s", make_plan(rows=8, shard_rows=8))
    with DescriptorStore.open(path) as store:
        with pytest.raises(IncompleteStoreError, match=r"no image '00003'.*img/00003ü.jpg"):
            store.image_summary("00003")
        with pytest.raises(ValueError, match="not the one string"):
            store.read("img/00003ü.jpg")


# ------------------------------------------------------------------ an error at every single step


class FailingOs:
    """Stands for the module os: counts the calls that change a disk, and fails one of them."""

    CALLS = (
        *("open", "write", "pwrite", "fsync", "rename", "link", "unlink", "ftruncate"),
        *("posix_fallocate", "close", "pread"),
    )

    def __init__(self, fail_at: int, error: OSError) -> None:
        self.count = 0
        self.fail_at = fail_at
        self.error = error
        self.trace: list[str] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (any member of os)
        real = getattr(os, name)
        if name not in self.CALLS:
            return real

        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  (any call)
            self.count += 1
            self.trace.append(name)
            if self.count == self.fail_at and name != "close":
                if name in {"write", "pwrite"}:  # some bytes arrive before the error
                    real(arguments[0], bytes(arguments[1])[:7], *arguments[2:])
                raise self.error
            return real(*arguments, **options)

        return call


def under(failing: FailingOs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "os", failing)
    monkeypatch.setattr(writer, "os", failing)
    monkeypatch.setattr(hdf5, "os", failing)


def visible(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock")}


def steps_of(work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    plan = make_plan(rows=16, shard_rows=8)
    shards = ShardFolder(tmp_path / "count", plan)
    shards.commit(0, make_rows(plan, 0), {})
    if work == "assemble":
        shards.commit(1, make_rows(plan, 1), {})
    counting = FailingOs(-1, OSError())
    with monkeypatch.context() as patch:
        under(counting, patch)
        shards.assemble() if work == "assemble" else shards.commit(1, make_rows(plan, 1), {})
    return counting.trace


@pytest.mark.parametrize("work", ["commit", "assemble"])
@pytest.mark.parametrize(
    "number",  # ENOSPC; EIO, EROFS, ESTALE, EDQUOT
    [28, *(pytest.param(number, marks=pytest.mark.slow) for number in (5, 30, 116, 122))],
)
def test_an_error_at_any_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str, number: int
) -> None:
    plan = make_plan(rows=16, shard_rows=8)
    quiet = digest(fill(tmp_path / "quiet", plan))
    trace = steps_of(work, tmp_path, monkeypatch)
    assert {"fsync", "rename", "link", "open"} <= set(trace)
    failed = 0
    for step in range(1, len(trace) + 1):
        folder = tmp_path / f"{step}"
        shards = ShardFolder(folder, plan)
        shards.commit(0, make_rows(plan, 0), {})
        if work == "assemble":
            shards.commit(1, make_rows(plan, 1), {})
        with monkeypatch.context() as patch:
            under(FailingOs(step, OSError(number, os.strerror(number))), patch)
            try:
                shards.assemble() if work == "assemble" else shards.commit(
                    1, make_rows(plan, 1), {}
                )
            except PublishError as error:
                failed += 1
                assert os.strerror(number) in str(error)
        for h5 in folder.rglob("*.h5"):  # nothing half-written under a final name
            h5py.File(io.BytesIO(h5.read_bytes()), "r").close()
        assert digest(fill(folder, plan)) == quiet
        with DescriptorStore.open(folder) as store:
            assert store.verify().faults == ()
        publish.sweep(folder)
    assert failed >= len(trace) // 2


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(rows=16, shard_rows=8)
    quiet = digest(fill(tmp_path / "quiet", plan))

    class Short:
        def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (any member of os)
            return getattr(os, name)

        def write(self, descriptor: int, data: memoryview) -> int:
            return os.write(descriptor, data[: max(1, len(data) // 2)])

        def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
            return os.pwrite(descriptor, data[: max(1, len(data) // 2)], offset)

    monkeypatch.setattr(publish, "os", Short())
    monkeypatch.setattr(writer, "os", Short())
    monkeypatch.setattr(hdf5, "os", Short())
    assert digest(fill(tmp_path / "short", plan)) == quiet


@pytest.mark.slow
def test_a_file_size_limit_is_a_clear_error_and_nothing_is_lost(tmp_path: Path) -> None:
    """The limit stands for a full disk: libhdf5 writing by itself would crash the process."""
    code = f"""
        import resource, sys
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from tests.support.store_writer import make_plan, make_rows
        from vggfeat.errors import PublishError
        from vggfeat.store.writer import ShardFolder, claims
        plan = make_plan(rows=400, shard_rows=8)
        shards = ShardFolder(Path({str(tmp_path / "s")!r}), plan)
        for number, _ in claims([shards]):
            shards.commit(number, make_rows(plan, number), {{}})
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        try:
            shards.assemble()
        except PublishError as error:
            sys.exit(f"clear: {{error}}")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "clear: No room for" in done.stderr
    assert "all finished work is kept" in done.stderr
    plan = make_plan(rows=400, shard_rows=8)
    assert ShardFolder(tmp_path / "s", plan).pending() == []
    assert not list((tmp_path / "s").glob("*.h5"))
    assert digest(fill(tmp_path / "s", plan)) == digest(fill(tmp_path / "quiet", plan))


def test_a_folder_that_cannot_be_written_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, whom no mode stops; so the system's answer is injected."""
    plan = make_plan(rows=8, shard_rows=8)
    under(FailingOs(1, PermissionError(13, "Permission denied")), monkeypatch)
    with pytest.raises(PublishError, match=r"cannot be written: Permission denied.*--cache"):
        ShardFolder(tmp_path / "s", plan)


def test_temporaries_of_dead_processes_are_swept_and_of_living_ones_kept(tmp_path: Path) -> None:
    host = publish._host()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = tmp_path / f".x.h5.{host}~{dead.pid}~0a1b.tmp"
    kept = [
        tmp_path / f".x.h5.{host}~{os.getpid()}~0a1b.tmp",
        tmp_path / f".x.h5.elsewhere~{dead.pid}~0a1b.tmp",
        tmp_path / "x.tmp",
    ]
    for path in (gone, *kept):
        path.touch()
    publish.sweep(tmp_path)
    assert not gone.exists()
    assert all(path.exists() for path in kept)


def test_a_second_assembler_that_finds_the_shards_gone_has_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(rows=24, shard_rows=8)
    one, two = ShardFolder(tmp_path / "s", plan), ShardFolder(tmp_path / "s", plan)
    for number, _ in claims([one]):
        one.commit(number, make_rows(plan, number), {})
    original = ShardFolder._verified

    def slow(self: ShardFolder, records: Any) -> Any:  # noqa: ANN401  (as the original)
        if self is two:
            one.assemble()
        return original(self, records)

    monkeypatch.setattr(ShardFolder, "_verified", slow)
    assert digest(two.assemble()) == digest(fill(tmp_path / "quiet", plan))
    assert two.pending() == []


def test_donors_give_rows_of_the_same_image_and_recipe(tmp_path: Path) -> None:
    plan = make_plan(rows=20, shard_rows=8)
    fill(tmp_path / "one", plan)
    found = possible_donors(tmp_path / "two", plan.row_fingerprint, (384, 512))
    assert [name for name, _ in found] == ["one/descriptors.h5"]
    assert possible_donors(tmp_path / "two", "another row", (384, 512)) == ()
    assert possible_donors(tmp_path / "two", plan.row_fingerprint, (512, 640)) == ()
    source = make_rows(plan, 0)
    digests = {5: source.image_sha256[2].tobytes().hex(), 6: "ab" * 32}
    known, sizes = Donors(tmp_path / "two", found).known(digests, (384, 512))
    assert list(known) == [5]
    descriptor, norm = known[5][0]
    assert np.array_equal(descriptor, source.descriptors[2, 1])
    assert norm == source.norms[2, 1]
    assert sizes[5] == tuple(source.image_size[2])


def test_several_donors_give_an_image_the_scales_that_each_has(tmp_path: Path) -> None:
    scales = {"a": (256,), "b": (384, 512), "c": (512,), "d": (640,)}
    plans = {k: replace(make_plan(rows=20, shard_rows=20), scales=q) for k, q in scales.items()}
    for name, plan in plans.items():
        shards = ShardFolder(tmp_path / name, plan)
        shards.commit(0, make_rows(plan, 0), {"seconds": 8.0} if name != "c" else {})
        shards.assemble()
    wanted = (256, 384, 512)
    found = possible_donors(tmp_path / "x", "r" * 64, wanted)
    assert [name[0] for name, _ in found] == ["b", "a", "c"]  # the most scales first
    rows = {name: make_rows(plan, 0) for name, plan in plans.items()}
    image = rows["a"].image_sha256[2].tobytes().hex()
    with Donors(tmp_path / "x", found) as donors:
        assert donors.lacking(image, wanted) == ()
        assert donors.lacking(image, (640, *wanted)) == (640,)
        assert donors.lacking("00" * 32, wanted) == wanted
        known, _ = donors.known({7: image}, wanted)
        for index, (name, place) in enumerate((("a", 0), ("b", 0), ("b", 1))):
            descriptor, norm = known[7][index]
            assert np.array_equal(descriptor, rows[name].descriptors[2, place])
            assert norm == rows[name].norms[2, place]
        assert donors.seconds([image], wanted) == pytest.approx(8 / 20 + 8 / 20)
        part = 384**2 / (384**2 + 512**2)
        assert donors.seconds([image, image], (384,)) == pytest.approx(2 * part * 8 / 20)
    with Donors(tmp_path / "x", found[-1:]) as donors:
        assert donors.seconds([image], wanted) is None  # nobody has noted those of "c"


def test_a_donor_that_is_gone_is_named_and_its_rows_are_computed(tmp_path: Path) -> None:
    plan = replace(make_plan(rows=8, shard_rows=8), donors=(("gone/descriptors.h5", "x"),))
    donors = Donors(tmp_path / "two", plan.donors)
    assert donors.missing == ["gone/descriptors.h5"]
    assert donors.known({0: "ab" * 32}, plan.scales) == ({}, {})


def test_every_error_is_one_of_ours() -> None:
    assert issubclass(DamagedStoreError, VggfeatError)
    assert issubclass(StoreNotFoundError, FileNotFoundError)
