"""``__all__`` of every module names what exists, and the package's own names resolve."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

import prefect_lite
from prefect_lite.version import __version__

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "prefect_lite": ROOT,
    "prefect_lite_worker": ROOT / "worker",
    "prefect_lite_broker": ROOT / "broker",
}


def module_names() -> list[str]:
    names = []
    for package, base in FOLDERS.items():
        for path in (base / package).rglob("*.py"):
            if path.stem != "__main__":
                name = ".".join(path.relative_to(base).with_suffix("").parts)
                names.append(name.removesuffix(".__init__"))
    return sorted(names)


@pytest.mark.parametrize("name", module_names())
def test_module_imports_and_exports_what_it_says(name: str) -> None:
    module = importlib.import_module(name)
    for exported in getattr(module, "__all__", ()):
        assert getattr(module, exported, None) is not None, f"{name}.{exported}"


def test_the_package_names_resolve_and_are_listed() -> None:
    for name in prefect_lite.__all__:
        assert getattr(prefect_lite, name) is not None
    assert set(prefect_lite.__all__) <= set(dir(prefect_lite))


def test_modules_work_as_attributes() -> None:
    assert prefect_lite.states.Completed(data=1).data == 1
    assert prefect_lite.runtime.task_run is not None
    assert prefect_lite.task_runners.ThreadPoolTaskRunner is prefect_lite.ThreadPoolTaskRunner


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        prefect_lite.no_such_name  # noqa: B018


def test_the_version_is_the_one_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", __version__)
