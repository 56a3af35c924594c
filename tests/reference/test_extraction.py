"""The files of this folder are complete, and the program that makes them reads what it should."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.reference import extract
from tests.reference.sections import EXAMPLES, sections
from tests.reference.specification import read_examples, read_option_lists, read_signatures

HERE = Path(__file__).parent
LITTLE = """\
# tasks

### `exponential_backoff`

```python 
exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]
```

**Args:**

* `backoff_factor`: the base delay

### `Task`

**Args:**

* `fn`: The function. The option `other` is not one.
* `log_prints`: If set, prints are redirected. Defaults
  to `None`, which says nothing.
* `**task_kwargs`: All others

**Methods:**

#### `map`

```python 
map(self: 'Task[P, R]', *args: Any, wait: bool = False, **kwargs: Any) -> list[State[R]]
```

Wait for all

```python 
from prefect import flow
@flow
def my_flow():
    futures.wait():
```
"""  # noqa: W291


def test_there_are_34_examples_33_signatures_and_9_option_lists() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.is_file()) == [
        f"ex{number:02}.py" for number in range(1, 35)
    ]
    assert list(sections()) == list(range(1, 35))
    signatures = tomllib.loads((HERE / "signatures.toml").read_text())["signature"]
    assert [each["number"] for each in signatures] == list(range(1, 34))
    lists = tomllib.loads((HERE / "options.toml").read_text())["options"]
    assert [each["number"] for each in lists] == list(range(1, 10))


def test_examples_are_the_blocks_that_are_not_right_below_a_heading() -> None:
    (example,) = read_examples(LITTLE)
    assert example.of == "Task.map"
    assert example.corrected
    assert example.code == ("from prefect_lite import flow\n@flow\ndef my_flow():\n    futures.wait()\n")


def test_signatures_have_names_kinds_annotations_and_defaults() -> None:
    backoff, mapping = read_signatures(LITTLE)
    assert (backoff.number, backoff.of) == (1, "exponential_backoff")
    assert (mapping.number, mapping.of, mapping.returns) == (2, "Task.map", "list[State[R]]")
    assert [(each["name"], each["kind"]) for each in mapping.parameters] == [
        ("self", "positional or keyword"),
        ("args", "variadic positional"),
        ("wait", "keyword only"),
        ("kwargs", "variadic keyword"),
    ]
    assert mapping.parameters[0]["annotation"] == "Task[P, R]"
    assert mapping.parameters[2] == {
        "name": "wait",
        "kind": "keyword only",
        "annotation": "bool",
        "default": "False",
    }


def test_option_lists_are_those_of_decorators_classes_and_methods() -> None:
    (options,) = read_option_lists(LITTLE)
    assert (options.number, options.of) == (1, "Task")
    assert options.names == ("fn", "log_prints", "**task_kwargs")
    assert options.defaults == {"log_prints": "None"}


def test_what_differs_from_the_specification_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extract, "HERE", tmp_path)
    (tmp_path / "examples").mkdir()
    specification = tmp_path / "specification.md"
    specification.write_text(LITTLE)
    assert extract.main([str(specification), "--check"]) == 1
    assert capsys.readouterr().out.count("differs:") == 3
    assert extract.main([str(specification)]) == 0
    assert extract.main([str(specification), "--check"]) == 0
    (tmp_path / "examples" / "ex02.py").write_text("")
    assert extract.main([str(specification), "--check"]) == 1
    assert "extra:" in capsys.readouterr().out
    assert tomllib.loads((tmp_path / "options.toml").read_text())["options"][0]["defaults"] == {
        "log_prints": "None"
    }
