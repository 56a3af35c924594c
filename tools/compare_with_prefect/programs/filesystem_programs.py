"""File systems and saved blocks."""

import asyncio
import os
import tempfile
import uuid
from pathlib import Path

from observing import told
from prefect import task
from prefect.filesystems import LocalFileSystem, RemoteFileSystem, WritableFileSystem


def _folder():
    return Path(tempfile.mkdtemp(dir=".")).resolve()


def _name():
    return f"x{uuid.uuid4().hex[:10]}"


def written_and_read():
    folder = _folder()
    files = LocalFileSystem(basepath=str(folder))
    written = files.write_path("a/b.txt", b"bytes")
    return [
        Path(written) == folder / "a" / "b.txt",
        files.read_path("a/b.txt") == b"bytes",
        (folder / "a" / "b.txt").read_bytes() == b"bytes",
        told(lambda: files.read_path(str(folder / "a" / "b.txt")) == b"bytes"),
    ]


def asynchronous():
    files = LocalFileSystem(basepath=str(_folder()))

    async def run():
        await files.awrite_path("a", b"1")
        return (await files.aread_path("a")) == b"1"

    async def plain():
        await files.write_path("b", b"1")
        return (await files.read_path("b")) == b"1"

    return [told(lambda: asyncio.run(run())), told(lambda: asyncio.run(plain()))]


def missing():
    files = LocalFileSystem(basepath=str(_folder()))
    return [told(lambda: files.read_path("nothing")), told(lambda: files.read_path(""))]


def folders_as_files():
    folder = _folder()
    (folder / "sub").mkdir()
    files = LocalFileSystem(basepath=str(folder))
    return [
        told(lambda: files.read_path("sub")),
        told(lambda: files.write_path("sub", b"")),
    ]


def outside():
    files = LocalFileSystem(basepath=str(_folder()))
    return [
        told(lambda: files.write_path("../x", b"")),
        told(lambda: files.read_path("../x")),
        told(lambda: files.write_path("/tmp/x-outside", b"")),
        told(lambda: files.write_path("a/../../x", b"")),
    ]


def inside_by_detours():
    files = LocalFileSystem(basepath=str(_folder()))
    return told(lambda: Path(files.write_path("a/../b", b"")).name)


def links_that_lead_outside():
    folder, other = _folder(), _folder()
    (other / "secret").write_bytes(b"s")
    os.symlink(other, folder / "link")
    files = LocalFileSystem(basepath=str(folder))
    return told(lambda: files.read_path("link/secret"))


def base_paths():
    return [
        LocalFileSystem().basepath,
        LocalFileSystem(basepath="a/b").basepath,
        LocalFileSystem(basepath=Path("/a/b")).basepath,
        told(lambda: LocalFileSystem(basepath=5)),
        LocalFileSystem(basepath="~/x").basepath,
        told(lambda: LocalFileSystem(zz=1)),
        told(lambda: LocalFileSystem("a")),
    ]


def new_folders():
    folder = _folder() / "new" / "deep"
    files = LocalFileSystem(basepath=str(folder))
    files.write_path("a", b"1")
    return files.read_path("a") == b"1"


def overwritten():
    files = LocalFileSystem(basepath=str(_folder()))
    files.write_path("a", b"long content")
    files.write_path("a", b"x")
    return files.read_path("a") == b"x"


def content_of_other_types():
    files = LocalFileSystem(basepath=str(_folder()))
    return [
        told(lambda: files.write_path("a", "text")),
        told(lambda: files.write_path("a", None)),
    ]


def equality():
    return [
        LocalFileSystem(basepath="a") == LocalFileSystem(basepath="a"),
        LocalFileSystem(basepath="a") == LocalFileSystem(basepath="b"),
    ]


def saved():
    name, folder = _name(), _folder()
    files = LocalFileSystem(basepath=str(folder))
    identity = files.save(name)
    again = LocalFileSystem.load(name)
    return [identity, again.basepath == str(folder), type(again).__name__, again == files]


def saved_twice():
    name = _name()
    LocalFileSystem(basepath="a").save(name)
    refused = told(lambda: LocalFileSystem(basepath="b").save(name))
    LocalFileSystem(basepath="c").save(name, overwrite=True)
    loaded = LocalFileSystem.load(name)
    changed = LocalFileSystem.load(name)
    changed.basepath = "d"
    told(lambda: changed.save(name, overwrite=True))
    return [refused, loaded.basepath, LocalFileSystem.load(name).basepath]


def saved_under_odd_names():
    return [
        told(lambda name=name: LocalFileSystem(basepath="a").save(name, overwrite=True))
        for name in ("With-Upper", "with space", "a/b", "", "a_b", "ok-9", "-x", "x.y", "ü")
    ]


def not_saved():
    return [
        told(lambda: LocalFileSystem.load("never-saved")),
        told(lambda: LocalFileSystem.load("local-file-system/never-saved")),
        told(lambda: LocalFileSystem.delete("never-saved")),
    ]


def deleted():
    name = _name()
    LocalFileSystem(basepath="a").save(name)
    return [told(lambda: LocalFileSystem.delete(name)), told(lambda: LocalFileSystem.load(name))]


def saved_asynchronously():
    name = _name()

    async def run():
        await LocalFileSystem(basepath="a").asave(name)
        return (await LocalFileSystem.aload(name)).basepath

    async def plain():
        await LocalFileSystem(basepath="a").save(name + "b")
        return (await LocalFileSystem.load(name + "b")).basepath

    return [told(lambda: asyncio.run(run())), told(lambda: asyncio.run(plain()))]


def remote():
    files = RemoteFileSystem(basepath="memory://base")
    files.write_path("a/b", b"bytes")
    return [
        files.read_path("a/b") == b"bytes",
        told(lambda: files.read_path("nothing")),
        told(lambda: files.read_path("memory://base/a/b") == b"bytes"),
        told(lambda: files.read_path("memory://other/a")),
    ]


def remote_base_paths():
    return [
        told(lambda path=path: RemoteFileSystem(basepath=path).basepath)
        for path in ("memory://a", "no-scheme", "file:///a", "s3://", "", "nothing://a", "/a/b")
    ]


def remote_settings():
    return [
        RemoteFileSystem(basepath="memory://a").settings,
        RemoteFileSystem(basepath="memory://a", settings={"x": 1}).settings,
        told(lambda: RemoteFileSystem(basepath="memory://a", settings=5)),
        told(lambda: RemoteFileSystem()),
    ]


def remote_kinds_that_are_unknown():
    return told(lambda: RemoteFileSystem(basepath="nothing://a").read_path("x"))


def remote_results():
    name = _name()
    RemoteFileSystem(basepath="memory://results").save(name)
    made = task(
        result_storage=f"remote-file-system/{name}", result_storage_key=_name(), cache_result_in_memory=False
    )(lambda: 5)
    return [told(made), told(lambda: made(return_state=True))]


def own_file_systems():
    contents = {}

    class Kept(WritableFileSystem):
        _block_type_slug = "kept-in-memory"

        def read_path(self, path):
            return contents[path]

        def write_path(self, path, content):
            contents[path] = content

    storage = Kept()
    saved = told(lambda: storage.save(_name(), overwrite=True))
    made = task(result_storage=storage, result_storage_key="k", cache_result_in_memory=False)(lambda: [1])
    return [saved, told(made), told(lambda: made(return_state=True)), sorted(contents)]


def own_asynchronous_file_systems():
    contents = {}

    class Later(WritableFileSystem):
        _block_type_slug = "kept-later"

        async def read_path(self, path):
            return contents[path]

        async def write_path(self, path, content):
            contents[path] = content

    storage = Later()
    saved = told(lambda: storage.save(_name(), overwrite=True))
    made = task(result_storage=storage, result_storage_key="k", cache_result_in_memory=False)(lambda: [1])
    return [saved, told(made), told(lambda: made(return_state=True)), sorted(contents)]


def file_systems_that_fail():
    class Broken(WritableFileSystem):
        _block_type_slug = "broken-files"

        def read_path(self, path):
            raise OSError("no read")

        def write_path(self, path, content):
            raise OSError("no write")

    storage = Broken()
    told(lambda: storage.save(_name(), overwrite=True))
    made = task(result_storage=storage, result_storage_key="k")(lambda: [1])
    return [told(made), told(lambda: made(return_state=True))]


def slugs():
    return [
        told(lambda: LocalFileSystem.get_block_type_slug()),
        told(lambda: RemoteFileSystem.get_block_type_slug()),
    ]
