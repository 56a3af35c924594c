"""Cache policies as objects: sums, differences, keys, and what configure changes."""

import tempfile
from pathlib import Path

from observing import told
from prefect import flow, task
from prefect.cache_policies import (
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
    Inputs,
)
from prefect.context import TaskRunContext
from prefect.filesystems import LocalFileSystem
from prefect.locking.memory import MemoryLockManager
from prefect.transactions import IsolationLevel

ALL = [INPUTS, TASK_SOURCE, FLOW_PARAMETERS, RUN_ID, DEFAULT, NO_CACHE]


def _folder():
    return Path(tempfile.mkdtemp(dir=".")).resolve()


def _told_policy(policy):
    parts = getattr(policy, "policies", None)
    return [type(policy).__name__, [_told_policy(part) for part in parts]] if parts else type(policy).__name__


def _key(policy, inputs=None, parameters=None, within=None):
    """The key that a policy gives in the run of a task."""
    found = []

    @task
    def probe(x=1):
        given = {"x": 1} if inputs is None else inputs
        try:
            found.append(policy.compute_key(TaskRunContext.get(), given, parameters or {}))
        except Exception as error:
            found.append(error)

    if within:
        flow(probe, name="outer")()
    else:
        probe()
    return found[0]


def kinds():
    return [_told_policy(policy) for policy in [*ALL, NONE]]


def sums():
    return [
        _told_policy(policy)
        for policy in (
            INPUTS + TASK_SOURCE,
            INPUTS + INPUTS,
            NO_CACHE + INPUTS,
            INPUTS + NO_CACHE,
            DEFAULT + FLOW_PARAMETERS,
            DEFAULT + DEFAULT,
            INPUTS + TASK_SOURCE + RUN_ID,
            INPUTS + (TASK_SOURCE + RUN_ID),
        )
    ]


def wrong_sums():
    return [
        told(lambda: INPUTS + "x"),
        told(lambda: INPUTS + None),
        told(lambda: INPUTS + 5),
        told(lambda: sum([INPUTS, TASK_SOURCE])),
    ]


def differences():
    return [
        told(lambda: _told_policy(INPUTS - "x")),
        told(lambda: (INPUTS - "x").exclude),
        told(lambda: (INPUTS - "x" - "y").exclude),
        told(lambda: INPUTS.exclude),
        told(lambda: _told_policy(TASK_SOURCE - "x")),
        told(lambda: _told_policy(DEFAULT - "x")),
        told(lambda: _told_policy(NO_CACHE - "x")),
        told(lambda: _told_policy(RUN_ID - "x")),
        told(lambda: _told_policy((INPUTS + TASK_SOURCE) - "x")),
    ]


def wrong_differences():
    return [
        told(lambda: INPUTS - 5),
        told(lambda: INPUTS - INPUTS),
        told(lambda: DEFAULT - None),
        told(lambda: NO_CACHE - 5),
    ]


def differences_with_different_keys():
    policy = INPUTS - "y"
    return [
        _key(policy, {"x": 1, "y": 1}) == _key(policy, {"x": 1, "y": 2}),
        _key(policy, {"x": 1, "y": 1}) == _key(policy, {"x": 2, "y": 1}),
        type(_key(INPUTS - "x", {"x": 1})).__name__,
        _key(INPUTS, {"x": 1}) == _key(policy, {"x": 1, "y": 1}),
    ]


def keys_outside_of_flows():
    return [type(_key(policy)).__name__ for policy in ALL]


def keys_in_flows():
    return [type(_key(policy, {"x": 1}, {"p": 1}, True)).__name__ for policy in ALL]


def keys_without_inputs():
    return [type(_key(policy, {})).__name__ for policy in ALL]


def keys_that_are_equal():
    return [
        _key(INPUTS, {"x": 1}) == _key(INPUTS, {"x": 1}),
        _key(INPUTS, {"x": 1}) == _key(INPUTS, {"x": 2}),
        _key(INPUTS, {"x": 1, "y": 2}) == _key(INPUTS, {"y": 2, "x": 1}),
        _key(TASK_SOURCE, {"x": 1}) == _key(TASK_SOURCE, {"x": 2}),
        _key(FLOW_PARAMETERS, {}, {"p": 1}) == _key(FLOW_PARAMETERS, {}, {"p": 1}),
        _key(FLOW_PARAMETERS, {}, {"p": 1}) == _key(FLOW_PARAMETERS, {}, {"p": 2}),
        _key(INPUTS + TASK_SOURCE) == _key(TASK_SOURCE + INPUTS),
        _key(INPUTS + NO_CACHE) == _key(INPUTS),
        _key(INPUTS) == _key(Inputs()),
    ]


def keys_that_can_not_be_made():
    import threading

    return [_key(INPUTS, {"x": threading.Lock()}), _key(DEFAULT, {"x": threading.Lock()})]


def functions():
    policy = CachePolicy.from_cache_key_fn(lambda context, parameters: f"key-{parameters['x']}")
    return [
        type(policy).__name__,
        _key(policy, {"x": 3}),
        type(_key(policy + INPUTS, {"x": 3})).__name__,
        told(lambda: _key(CacheKeyFnPolicy(cache_key_fn=None))),
        told(lambda: _key(CachePolicy.from_cache_key_fn(lambda context, parameters: None))),
        told(lambda: _key(CachePolicy.from_cache_key_fn(lambda context, parameters: 1 / 0))),
    ]


def functions_in_sums():
    policy = INPUTS + CachePolicy.from_cache_key_fn(lambda context, parameters: "fixed")
    return [
        _key(policy, {"x": 1}) == _key(policy, {"x": 1}),
        _key(policy, {"x": 1}) == _key(policy, {"x": 2}),
    ]


def own_policies():
    class Own(CachePolicy):
        def compute_key(self, task_ctx, inputs, flow_parameters, **kwargs):
            return f"own-{inputs['x']}"

    calls = []

    @task(cache_policy=Own(), result_storage=_folder())
    def made(x, y):
        calls.append(x)
        return x

    return [made(1, 1), made(1, 2), made(2, 2), calls, _told_policy(Own() + INPUTS)]


def policies_that_are_not_finished():
    class Own(CachePolicy):
        pass

    return [
        told(lambda: _key(Own())),
        told(lambda: task(cache_policy=Own(), result_storage=_folder())(lambda x: x)(1)),
    ]


def configured():
    locks, folder = MemoryLockManager(), _folder()
    policy = INPUTS.configure(
        key_storage=folder, lock_manager=locks, isolation_level=IsolationLevel.SERIALIZABLE
    )
    return [
        type(policy).__name__,
        policy.key_storage == folder,
        policy.lock_manager is locks,
        policy.isolation_level.value,
        [INPUTS.key_storage, INPUTS.lock_manager, INPUTS.isolation_level],
        told(lambda: INPUTS.configure().key_storage),
        told(lambda: INPUTS.configure(isolation_level="SERIALIZABLE").isolation_level),
        told(lambda: INPUTS.configure(isolation_level="nothing").isolation_level),
        told(lambda: INPUTS.configure(zz=1)),
    ]


def sums_of_configured():
    locks, folder = MemoryLockManager(), _folder()
    one = INPUTS.configure(key_storage=folder)
    two = TASK_SOURCE.configure(lock_manager=locks, isolation_level=IsolationLevel.SERIALIZABLE)
    policy = one + two
    return [
        policy.key_storage == folder,
        policy.lock_manager is locks,
        policy.isolation_level,
        (DEFAULT + one).key_storage == folder,
    ]


def sums_that_clash():
    return [
        told(lambda: INPUTS.configure(key_storage=_folder()) + TASK_SOURCE.configure(key_storage=_folder())),
        told(
            lambda: (
                INPUTS.configure(lock_manager=MemoryLockManager())
                + TASK_SOURCE.configure(lock_manager=MemoryLockManager())
            )
        ),
        told(
            lambda: (
                INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE)
                + TASK_SOURCE.configure(isolation_level=IsolationLevel.READ_COMMITTED)
            )
        ),
    ]


def key_storages():
    keys, results = _folder(), _folder()
    calls = []

    @task(cache_policy=INPUTS.configure(key_storage=keys), result_storage=results)
    def made(x):
        calls.append(x)
        return x

    return [made(1), made(1), calls, len(list(keys.iterdir())), len(list(results.iterdir()))]


def key_storages_as_text():
    keys, results = _folder(), _folder()

    @task(cache_policy=INPUTS.configure(key_storage=str(keys)), result_storage=results)
    def made(x):
        return x

    return [type(told(lambda: made(1))).__name__, len(list(keys.iterdir()))]


def key_storages_as_blocks():
    keys, results = _folder(), _folder()
    storage = LocalFileSystem(basepath=str(keys))

    @task(cache_policy=INPUTS.configure(key_storage=storage), result_storage=results)
    def made(x):
        return x

    return [
        told(lambda: made(1)),
        told(lambda: made(1, return_state=True)),
        len(list(keys.iterdir())),
        len(list(results.iterdir())),
    ]


def compound_policies():
    policy = CompoundCachePolicy(policies=[INPUTS, TASK_SOURCE])
    return [
        _told_policy(policy),
        _key(policy) == _key(INPUTS + TASK_SOURCE),
        told(lambda: _told_policy(CompoundCachePolicy(policies=[]))),
    ]


def equality():
    return [
        Inputs() == INPUTS,
        INPUTS == TASK_SOURCE,
        (INPUTS - "x") == (INPUTS - "x"),
        (INPUTS + TASK_SOURCE) == (INPUTS + TASK_SOURCE),
    ]


def policies_are_not_changed():
    before = _told_policy(DEFAULT)
    DEFAULT + FLOW_PARAMETERS
    DEFAULT - "x"
    INPUTS - "x"
    return [_told_policy(DEFAULT) == before, INPUTS.exclude]


def sources_of_odd_functions():
    namespace = {}
    exec("def typed(x):\n    return x", namespace)
    calls = []
    made = task(namespace["typed"], cache_policy=TASK_SOURCE, result_storage=_folder())
    return [told(lambda: made(1)), told(lambda: made(2)), calls]
