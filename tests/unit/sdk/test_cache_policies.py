"""What policies make of runs: sums, differences, configuration, and the keys themselves."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from prefect_lite import Task, flow, task
from prefect_lite.cache_keys import cache_key, effective_policy
from prefect_lite.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CacheKeyFnPolicy,
    CachePolicy,
    CompoundCachePolicy,
    FlowParameters,
    Inputs,
    RunId,
    TaskSource,
)
from prefect_lite.context import TaskRunContext, enter_run, leave_run
from prefect_lite.direct import task_context
from prefect_lite.exceptions import ConfigurationError, HashError, OptionTypeError
from prefect_lite.hashing import task_input_hash
from prefect_lite.run_creation import new_record
from prefect_lite.task_sources import source_hash
from prefect_lite.transactions import IsolationLevel

NOTHING: Any = None


class Locks:
    """Enough of a lock manager to be one."""

    def acquire_lock(self, key: str) -> bool:
        return True


def context_of(of: Task[..., Any], *args: Any, **kwargs: Any) -> TaskRunContext:
    """What the engine would have for a run of the task, called from here."""
    return task_context(of, args, kwargs, new_record(of, args, kwargs))


def key_of(of: Task[..., Any], *args: Any, **kwargs: Any) -> str | None:
    """The key of such a run."""
    context = context_of(of, *args, **kwargs)
    token = enter_run(context)
    try:
        return cache_key(context)
    finally:
        leave_run(token)


def inputs_key(policy: CachePolicy, **inputs: Any) -> str | None:
    return policy.compute_key(NOTHING, inputs, {})


def of(policy: CachePolicy) -> list[type[CachePolicy]]:
    return [type(part) for part in cast("CompoundCachePolicy", policy).policies]


def same(x: Any, y: int = 2, *args: Any, **kw: Any) -> Any:
    return x


# -- sums and differences -------------------------------------------------------------------------------


def test_sums_are_flat_and_inputs_are_last() -> None:
    assert of(INPUTS + TASK_SOURCE) == [TaskSource, Inputs]
    assert of(INPUTS + (TASK_SOURCE + RUN_ID)) == [TaskSource, RunId, Inputs]
    assert of(DEFAULT + RUN_ID) == [TaskSource, RunId, RunId, Inputs]
    assert of(CompoundCachePolicy(policies=[INPUTS, TASK_SOURCE + RUN_ID])) == [TaskSource, RunId, Inputs]
    assert of(DEFAULT) == [TaskSource, RunId, Inputs]


def test_inputs_in_a_sum_leave_out_what_any_of_them_does() -> None:
    total = cast("CompoundCachePolicy", (INPUTS - "x") + (INPUTS - "y") + INPUTS - "z")
    assert total.policies == [Inputs(exclude=["x", "y", "z"])]


def test_policies_are_values() -> None:
    assert Inputs() == INPUTS
    assert INPUTS + TASK_SOURCE == TASK_SOURCE + INPUTS
    assert NONE == NO_CACHE
    assert INPUTS != TASK_SOURCE
    assert INPUTS != INPUTS - "x"
    assert repr(INPUTS - "x").endswith("exclude=['x'])")


def test_sums_and_differences_leave_their_parts_alone() -> None:
    total = INPUTS + TASK_SOURCE
    _, _, _ = total + RUN_ID, total - "x", INPUTS - "x"
    assert Inputs() == INPUTS
    assert of(total) == [TaskSource, Inputs]
    assert total == INPUTS + TASK_SOURCE


def test_no_cache_adds_nothing() -> None:
    assert NO_CACHE + INPUTS == INPUTS + NO_CACHE == INPUTS
    assert NO_CACHE + NO_CACHE == NO_CACHE
    assert DEFAULT + NO_CACHE == NO_CACHE + DEFAULT == DEFAULT
    assert NO_CACHE.configure(key_storage="/x") + INPUTS == INPUTS


@pytest.mark.parametrize("policy", [TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, NO_CACHE, TASK_SOURCE + RUN_ID])
def test_where_there_are_no_arguments_none_can_be_left_out(policy: CachePolicy) -> None:
    assert policy - "x" == policy


@pytest.mark.parametrize("policy", [INPUTS, DEFAULT, NO_CACHE])
@pytest.mark.parametrize("other", [3, ["x"], None, INPUTS])
def test_only_names_are_subtracted(policy: CachePolicy, other: Any) -> None:
    with pytest.raises(TypeError, match=r"Can only subtract strings .* names of arguments"):
        policy - other


@pytest.mark.parametrize("other", [3, None, "x"])
def test_only_policies_are_added(other: Any) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        INPUTS + other
    with pytest.raises(TypeError):
        other + INPUTS


# -- configuration --------------------------------------------------------------------------------------


def test_configure_makes_another_policy_and_keeps_what_is_not_named() -> None:
    locks: Any = Locks()
    one = INPUTS.configure(key_storage="/a", lock_manager=locks)
    two = one.configure(isolation_level="SERIALIZABLE")
    assert Inputs() == INPUTS
    assert (one.key_storage, one.isolation_level, one.lock_manager) == ("/a", None, locks)
    assert (two.key_storage, two.isolation_level, two.lock_manager) == ("/a", "SERIALIZABLE", locks)
    assert (INPUTS - "x").configure(key_storage=Path("/a")) == Inputs(key_storage=Path("/a"), exclude=["x"])
    assert INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE).isolation_level == "SERIALIZABLE"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"isolation_level": "SERIALISABLE"}, ConfigurationError, "READ_COMMITTED or SERIALIZABLE"),
        ({"isolation_level": 1}, ConfigurationError, "READ_COMMITTED or SERIALIZABLE"),
        ({"lock_manager": 5}, OptionTypeError, "must be a lock manager, got int"),
        ({"key_storage": 5}, OptionTypeError, "`key_storage` must be"),
    ],
)
def test_configure_refuses_what_can_not_be_meant(options: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        INPUTS.configure(**options)


def test_a_sum_is_configured_as_its_parts_are() -> None:
    locks: Any = Locks()
    stored = INPUTS.configure(key_storage="/a")
    for total in (
        stored + TASK_SOURCE,
        TASK_SOURCE + stored,
        stored + RUN_ID.configure(key_storage="/a"),
        CompoundCachePolicy(policies=[stored, TASK_SOURCE]),
        DEFAULT + stored,
        stored + (DEFAULT - "x"),
    ):
        assert total.key_storage == "/a"
        assert {part.key_storage for part in cast("CompoundCachePolicy", total).policies} == {None}
    locked = TASK_SOURCE.configure(lock_manager=locks, isolation_level=IsolationLevel.SERIALIZABLE)
    total = stored + locked + RUN_ID.configure(isolation_level="SERIALIZABLE")
    assert (total.key_storage, total.isolation_level, total.lock_manager) == ("/a", "SERIALIZABLE", locks)
    assert (total - "x").lock_manager is locks
    assert total.configure(key_storage="/b").key_storage == "/b"


@pytest.mark.parametrize(
    ("name", "one", "other", "says"),
    [
        ("key_storage", "/a", "/b", "storage locations"),
        ("isolation_level", "SERIALIZABLE", "READ_COMMITTED", "isolation levels"),
        ("lock_manager", Locks(), Locks(), "lock implementations"),
    ],
)
def test_what_is_configured_differently_does_not_add_up(name: str, one: Any, other: Any, says: str) -> None:
    first, second = INPUTS.configure(**{name: one}), TASK_SOURCE.configure(**{name: other})
    for policies in ([first, second], [DEFAULT.configure(**{name: one}), second]):
        with pytest.raises(ValueError, match=f"different {says}.*Configure their sum"):
            policies[0] + policies[1]
        with pytest.raises(ValueError, match=f"different {says}"):
            CompoundCachePolicy(policies=policies)


# -- keys -----------------------------------------------------------------------------------------------


def test_inputs() -> None:
    assert inputs_key(INPUTS, x=1, y=2) == inputs_key(INPUTS, y=2, x=1)
    assert inputs_key(INPUTS, x=1) != inputs_key(INPUTS, x=2)
    assert inputs_key(INPUTS, x=1) != inputs_key(INPUTS, y=1)
    assert inputs_key(INPUTS) is None
    assert INPUTS.compute_key(NOTHING, {"x": 1}, {"p": 1}, more=1) == inputs_key(INPUTS, x=1)


def test_inputs_but_some() -> None:
    policy = INPUTS - "x" - "z"
    assert inputs_key(policy, x=1, y=2, z=3) == inputs_key(policy, x=4, y=2) == inputs_key(INPUTS, y=2)
    assert inputs_key(policy, x=1) == inputs_key(policy, z=1) is not None


def test_flow_parameters() -> None:
    made = functools.partial(FLOW_PARAMETERS.compute_key, NOTHING, {"x": 1})
    assert made({"p": 1}) == made({"p": 1}) != made({"p": 2})
    assert made({}) is None
    assert made({"x": 1}) != inputs_key(INPUTS, x=1), "those of a flow are not those of a task"


def test_no_cache_has_no_key() -> None:
    assert inputs_key(NO_CACHE, x=1) is None


def test_the_base_has_none() -> None:
    with pytest.raises(NotImplementedError, match="CachePolicy defines no compute_key"):
        inputs_key(CachePolicy(), x=1)


def test_sums_of_keys() -> None:
    word = CachePolicy.from_cache_key_fn(lambda *_: "word")
    nothing = CachePolicy.from_cache_key_fn(lambda *_: None)
    keys = [
        inputs_key(INPUTS, x=1),
        inputs_key(word, x=1),
        inputs_key(INPUTS + word, x=1),
        inputs_key(INPUTS + word, x=2),
        inputs_key(INPUTS + word),
        inputs_key(nothing + word),
    ]
    assert len(set(keys)) == len(keys), "a key says which of the parts has made what"
    assert inputs_key(nothing + nothing) is None
    assert inputs_key(CompoundCachePolicy()) is None
    assert inputs_key(INPUTS + nothing, x=1) == inputs_key(INPUTS + nothing, x=1)


def test_key_functions_get_context_and_arguments() -> None:
    made = task(cache_key_fn=lambda context, arguments: f"{context.task.name}-{arguments}")(same)
    assert key_of(made, 1, 3, 4, k=5) == "same-{'x': 1, 'y': 3, 'args': (4,), 'kw': {'k': 5}}"
    assert isinstance(effective_policy(made.options), CacheKeyFnPolicy)
    assert inputs_key(CacheKeyFnPolicy()) is None


def test_policies_of_ones_own() -> None:
    seen: list[Any] = []

    class Own(CachePolicy):
        def __init__(self, word: str) -> None:
            self.word = word

        def compute_key(self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any) -> str:
            seen.append((task_ctx.task.name, inputs, flow_parameters))
            return self.word

    @flow
    def around(p: int, q: int = 3) -> str | None:
        return key_of(task(cache_policy=Own("word"))(same), 1)

    assert around(9) == "word"
    assert key_of(task(cache_policy=Own("w").configure(key_storage="/a"))(same), 1) == "w"
    assert key_of(task(cache_policy=INPUTS + Own("w"))(same), 1) != key_of(task(cache_policy=INPUTS)(same), 1)
    inputs = {"x": 1, "y": 2, "args": (), "kw": {}}
    assert seen == [("same", inputs, {"p": 9, "q": 3}), *[("same", inputs, {})] * 2]


@dataclass
class OwnWithFields(CachePolicy):
    word: str = ""

    def compute_key(self, task_ctx: Any, inputs: Any, flow_parameters: Any, **kwargs: Any) -> str:
        return self.word


def test_policies_of_ones_own_that_are_dataclasses() -> None:
    assert inputs_key(OwnWithFields(word="w").configure(isolation_level="SERIALIZABLE")) == "w"


# -- in runs --------------------------------------------------------------------------------------------


def test_run_id_is_that_of_the_flow_run() -> None:
    made = task(cache_policy=RUN_ID)(same)
    inner = task(lambda: key_of(made, 1))

    @flow
    def around() -> list[str | None]:
        return [key_of(made, 1), key_of(made, 2), inner()]

    first, second = around(), around()
    assert len({*first}) == len({*second}) == 1
    assert first != second
    assert None not in first


def test_outside_of_flows_nobody_else_can_have_the_run_id() -> None:
    context = context_of(task(cache_policy=RUN_ID)(same), 1)
    assert RUN_ID.compute_key(context, {}, {}) == str(context.task_run.id)
    for policy in (RUN_ID, DEFAULT, RUN_ID + INPUTS, NO_CACHE, CompoundCachePolicy(policies=[NO_CACHE])):
        made = task(cache_policy=policy, persist_result=True)(same)
        assert not policy.may_repeat(context_of(made, 1))
        assert key_of(made, threading.Lock()) is None, "and so nothing is hashed"
    for policy in (INPUTS, TASK_SOURCE, FLOW_PARAMETERS, TASK_SOURCE + INPUTS):
        assert policy.may_repeat(context)

    @flow
    def around() -> None:
        inside = context_of(made, 1)
        assert RUN_ID.may_repeat(inside)
        assert DEFAULT.may_repeat(inside)
        assert not NO_CACHE.may_repeat(inside)

    around()


def test_the_default_is_the_same_code_with_the_same_arguments_in_one_flow_run() -> None:
    one, other = task(persist_result=True)(same), task(persist_result=True)(lambda x: x)

    @flow
    def around() -> list[str | None]:
        return [
            key_of(one, 1),
            key_of(one, 1),
            key_of(one.with_options(name="n"), 1),
            key_of(one, 2),
            key_of(other, 1),
        ]

    first, second = around(), around()
    assert first[0] == first[1] == first[2]
    assert len({*first, *second}) == 6


def test_flow_parameters_are_those_of_the_nearest_flow() -> None:
    made = task(cache_policy=FLOW_PARAMETERS)(same)

    @flow
    def inner(p: int) -> str | None:
        return task(lambda: key_of(made, 1))()

    @flow
    def outer(p: int) -> tuple[str | None, str | None]:
        return inner(2), key_of(made, 1)

    first, second = outer(1), outer(5)
    assert first[0] == second[0] == inner(2)
    assert first[1] != second[1]
    assert key_of(made, 1) is None


def test_arguments_of_methods() -> None:
    class Holder:
        def __init__(self, value: int) -> None:
            self.value = value

        @task(cache_policy=INPUTS)
        def whole(self, x: int) -> int:
            return x

        @task(cache_policy=INPUTS - "self")
        def without(self, x: int) -> int:
            return x

    def keys(name: str, value: int) -> str | None:
        holder = Holder(value)
        return key_of(getattr(holder, name), holder, 1)

    assert keys("whole", 1) == keys("whole", 1) != keys("whole", 2)
    assert keys("without", 1) == keys("without", 2)


# -- sources --------------------------------------------------------------------------------------------


def executed(text: str) -> Callable[..., Any]:
    space: dict[str, Any] = {}
    exec(text, space)
    return space["f"]


def test_source_changes_with_the_code() -> None:
    def f(x: int) -> int:
        return x + 1

    one = f

    def f(x: int) -> int:  # type: ignore[no-redef]
        return x + 2

    assert source_hash(one) == source_hash(one) != source_hash(f)
    pair = (lambda x: x + 1), (lambda x: x + 2)
    assert source_hash(pair[0]) != source_hash(pair[1]), "on one line"
    assert key_of(task(cache_policy=TASK_SOURCE)(one), 1) == key_of(task(cache_policy=TASK_SOURCE)(one), 2)


def test_code_without_a_source() -> None:
    texts = ["def f(x): return x + 1", "def f(x): return x + 2", "def f(x): return [x + 1 for _ in 'a']"]
    assert len({source_hash(executed(text)) for text in texts}) == 3
    assert source_hash(executed(texts[0])) == source_hash(executed(texts[0]))
    assert source_hash(len) != source_hash(max)


def test_source_of_other_callables() -> None:
    class Caller:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, x: int) -> int:
            return x

    class Other:
        def __call__(self, x: int) -> int:
            return x + 1

    assert source_hash(Caller()) == source_hash(Caller()) != source_hash(Other())
    three, four = functools.partial(same, 3), functools.partial(same, 4)
    assert source_hash(three) == source_hash(functools.partial(same, 3))
    assert len({source_hash(three), source_hash(four), source_hash(same)}) == 3
    with pytest.raises(HashError):
        source_hash(functools.partial(same, threading.Lock()))


def test_a_file_that_has_changed_since_does_not_speak_for_what_was_loaded(tmp_path: Path) -> None:
    """Else what a worker does before it is restarted would be kept as what the new code does."""
    code = """
import pathlib, sys
import changing
if len(sys.argv) > 1:
    path = pathlib.Path("changing.py")
    path.write_text(path.read_text().replace("1", "2"))
from prefect_lite.task_sources import source_hash
print(source_hash(changing.f))
"""
    (tmp_path / "changing.py").write_text("def f(x):\n    return x + 1\n")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONDONTWRITEBYTECODE": "1"}

    def printed(*args: str) -> str:
        command = [sys.executable, "-c", code, *args]
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True
        ).stdout

    before = printed()
    assert printed() == before, "in every process"
    meanwhile = printed("change")
    after = printed()
    assert len({before, meanwhile, after}) == 3


# -- what options say together --------------------------------------------------------------------------


def policy_of(**options: Any) -> CachePolicy:
    return effective_policy(task(**options)(same).options)


def test_the_effective_policy() -> None:
    assert policy_of() == policy_of(persist_result=True) == policy_of(result_serializer="json") == DEFAULT
    assert policy_of(cache_policy=INPUTS) == INPUTS
    assert policy_of(cache_policy=NO_CACHE) == NO_CACHE
    assert policy_of(persist_result=False) == policy_of(persist_result=False, cache_policy=INPUTS) == NO_CACHE
    assert policy_of(persist_result=False, cache_key_fn=lambda *_: "x") == NO_CACHE


def test_a_key_function_goes_before_a_policy_which_still_configures() -> None:
    configured = INPUTS.configure(key_storage="/a", isolation_level="SERIALIZABLE")
    policy = policy_of(cache_key_fn=lambda *_: "word", cache_policy=configured)
    assert inputs_key(policy) == "word"
    assert (policy.key_storage, policy.isolation_level) == ("/a", "SERIALIZABLE")
    assert key_of(task(cache_key_fn=lambda *_: "word", cache_policy=NO_CACHE)(same), 1) == "word"


def test_a_storage_key_goes_before_all() -> None:
    template = "{parameters[x]}/{task_run.task_name}-{flow_run.flow_name}.json"
    options: dict[str, Any] = {"result_storage_key": template, "cache_key_fn": lambda *_: "word"}
    made = task(**options, cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE"))(same)
    assert key_of(made, 7) == "7/same-None.json"
    assert flow(name="around")(lambda: key_of(made, 7))() == "7/same-around.json"
    assert effective_policy(made.options).isolation_level == "SERIALIZABLE"
    assert effective_policy(made.options).may_repeat(context_of(made, 7))


def test_a_storage_key_without_a_cache_is_only_written() -> None:
    made = task(result_storage_key="here", cache_policy=NO_CACHE)(same)
    assert key_of(made, 1) == "here"
    assert not effective_policy(made.options).may_repeat(context_of(made, 1))


@pytest.mark.parametrize(
    "template",
    [
        "{x}",
        "{parameters[nope]}",
        "{task_run.nope}",
        "{task.name}",
        "{",
        "{}",
        "{0}",
        "{parameters[y]:z}",
        "",
    ],
)
def test_a_template_that_can_not_be_filled_in(template: str) -> None:
    with pytest.raises(ConfigurationError, match="can't be filled in") as caught:
        key_of(task(result_storage_key=template)(same), 1)
    assert "parameters[name], of these: x, y, args, kw" in str(caught.value)


@pytest.mark.parametrize("policy", [object(), Locks()])
def test_what_is_no_policy(policy: Any) -> None:
    with pytest.raises(OptionTypeError, match="`cache_policy` must be"):
        policy_of(cache_policy=policy)


# -- keys that can't be had -----------------------------------------------------------------------------


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """The text of all errors in the log."""
    logger = logging.getLogger("prefect_lite")
    handler = caplog.handler
    logger.addHandler(handler)

    def text() -> str:
        return "\n".join(handler.format(one) for one in caplog.records if one.levelno >= logging.ERROR)

    return text


@pytest.fixture(autouse=True)
def _logger_is_as_before(caplog: pytest.LogCaptureFixture) -> Any:
    yield
    logging.getLogger("prefect_lite").removeHandler(caplog.handler)


def test_arguments_that_can_not_be_hashed(errors: Callable[[], str]) -> None:
    for policy in (INPUTS, TASK_SOURCE + INPUTS):
        assert key_of(task(cache_policy=policy)(same), [threading.Lock()]) is None
    said = errors()
    assert "Error encountered when computing cache key" in said
    assert "type _thread.lock: cannot pickle" in said
    assert "It is in the argument 'x'" in said
    assert 'cache_policy=INPUTS - "its name"' in said
    assert "Traceback" not in said
    assert key_of(task(cache_policy=INPUTS - "x")(same), threading.Lock()) is not None


def test_task_input_hash(errors: Callable[[], str]) -> None:
    made, other = task(cache_key_fn=task_input_hash)(same), task(cache_key_fn=task_input_hash)(lambda x: x)
    assert key_of(made, 1) == key_of(made, 1)
    renamed = made.with_options(key="renamed")
    keys = [key_of(made, 1), key_of(made, 2), key_of(other, 1), key_of(renamed, 1)]
    assert None not in keys
    assert len({*keys}) == 4
    assert not errors()
    assert key_of(made, threading.Lock()) is None
    assert "It is in the argument 'x'" in errors()


def test_a_key_function_that_raises(errors: Callable[[], str]) -> None:
    def of_run(context: Any, arguments: Any) -> str:
        raise KeyError("nope")

    assert key_of(task(cache_key_fn=of_run)(same), 1) is None
    assert "of_run' raised an exception" in errors()
    assert "KeyError: 'nope'" in errors(), "with its traceback, as it is the user's code"


def test_a_policy_that_raises(errors: Callable[[], str]) -> None:
    assert key_of(task(cache_policy=CachePolicy())(same), 1) is None
    assert "The cache policy CachePolicy raised" in errors()


async def later(*_: Any) -> str:
    return "x"


@pytest.mark.parametrize("made", [lambda *_: 5, lambda *_: b"x", lambda *_: ["x"], lambda *_: True, later])
def test_a_key_that_is_no_text(made: Any, errors: Callable[[], str]) -> None:
    assert key_of(task(cache_key_fn=made)(same), 1) is None
    assert "instead of text or None" in errors()


@pytest.mark.parametrize("key", [None, ""])
def test_no_key(key: str | None, errors: Callable[[], str]) -> None:
    assert key_of(task(cache_key_fn=lambda *_: key)(same), 1) is None
    assert not errors()


@pytest.mark.parametrize("key", ["x", "a/b", "ä", " ", "x" * 200])
def test_keys_that_are_names_stay_as_they_are(key: str) -> None:
    assert key_of(task(cache_key_fn=lambda *_: key)(same), 1) == key


@pytest.mark.parametrize(
    "key", ["../x", "/etc/x", "a//b", "a/./b", "x\0", "x\n", "x" * 201, "\ud800", "a\\b"]
)
def test_keys_that_no_file_can_have_are_hashed(key: str) -> None:
    made = key_of(task(cache_key_fn=lambda *_: key)(same), 1)
    other = key_of(task(cache_key_fn=lambda *_: key + "y")(same), 1)
    assert made != other
    assert len(made or "") == 32
    assert (made or "").isalnum()


def test_policies_load_nothing_heavy() -> None:
    code = "import prefect_lite.cache_policies, prefect_lite.cache_keys, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not {"pydantic", "cloudpickle", "numpy", "fsspec", "prefect_lite.transactions"} & {
        *done.stdout.split()
    }


def test_all_that_is_exported_is_there() -> None:
    import prefect_lite.cache_policies as module

    assert {name for name in module.__all__ if not hasattr(module, name)} == set()
    assert isinstance(FLOW_PARAMETERS, FlowParameters)
