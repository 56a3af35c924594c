"""The verbs of the wire protocol, one immutable class per verb.

A frame is a msgpack array of messages; a message is ``[verb, *fields]`` in the field order below. Classes
are ``NamedTuple``: frozen, slotted, and built and packed at C speed (a frozen dataclass of eight fields
costs about 2 us to make, a NamedTuple 0.3 us).

Units: ``*_seconds`` are durations as float seconds (no foreign clock travels); ``*_ms`` are Redis TIME in
milliseconds since the epoch, always set by the broker. Run ids are 32 lower-case hex digits; tokens are
opaque strings of at most 64 characters; ``body`` and ``result`` are opaque bytes that the broker never
decodes. On the wire a blob longer than the chunk size is replaced by the number of the CHUNK stream that
carried it (``session.py`` does and undoes that; the rest of the code sees bytes only).

New fields are appended with a default, so an older peer can leave them out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

PROTOCOL_NAME = "prefect-lite.v1"
PROTOCOL_MINOR = 0


class Hello(NamedTuple):
    """First message of a peer. An empty ``session`` asks for a new one; otherwise it is resumed."""

    minor: int
    role: str  # "client", "worker" or "admin"
    namespace: str
    session: str = ""
    secret: bytes = b""  # the one from WELCOME, proves the right to resume
    epoch: int = 0  # the last epoch this peer knows
    version: str = ""  # package version, for the record
    info: dict[str, Any] = {}  # noqa: RUF012  # host, pid, name; never mutated


class Welcome(NamedTuple):
    """The broker's answer to HELLO."""

    minor: int
    session: str
    secret: bytes
    epoch: int
    resumed: bool
    held: list[list[str]]  # [[run id, token], ...] still leased to a resumed worker session
    lease_seconds: float
    renew_seconds: float
    max_payload_bytes: int
    broker: str  # broker id
    version: str


class Submit(NamedTuple):
    """A pending run. The client chooses the id, so that a repeated SUBMIT never makes a second run."""

    run_id: str
    task_key: str
    body: bytes  # signed envelope of arguments and travelling options
    fingerprint: bytes = b""  # digest of task key and arguments, to tell a repeat from a conflict
    name: str = ""  # label for people
    countdown_seconds: float = 0.0
    expires_seconds: float = 0.0  # 0: never
    priority: int = 0  # 0 (default) to 9, higher first
    idempotency_key: str = ""
    result_ttl_seconds: float = 0.0  # 0: the broker's default
    max_lost: int = -1  # -1: the broker's default
    parents: list[str] = []  # noqa: RUF012  # run ids that must be COMPLETED before this run is ready
    tags: list[str] = []  # noqa: RUF012
    watch: bool = False  # the sender waits for the end: as if a WATCH followed ACCEPTED
    tolerated: list[str] = []  # noqa: RUF012  # further run ids to wait for, which may end in any way
    info: bytes = b""  # what the run belongs to and what went into it, for whoever asks; opaque


class Accepted(NamedTuple):
    """Runs that Redis has. Sent only after the write."""

    run_ids: list[str]
    aliases: list[list[str]] = []  # noqa: RUF012  # [[asked id, existing id], ...] by idempotency key
    notices: list[list[str]] = []  # noqa: RUF012  # [[task key, sentence], ...] e.g. nobody serves the key


class Refused(NamedTuple):
    """A SUBMIT that was not stored."""

    run_id: str
    code: str
    text: str
    retry_after_seconds: float = -1.0  # below 0: do not repeat


class Watch(NamedTuple):
    """Ask for the terminal STATE of runs, now or when they end."""

    run_ids: list[str]


class Unwatch(NamedTuple):
    run_ids: list[str]


class RunState(NamedTuple):
    """STATE: where a run stands. ``type`` is "" when the broker has no record of it."""

    run_id: str
    type: str = ""  # prefect_lite.states.StateType value
    name: str = ""
    message: str = ""
    task_key: str = ""
    attempt: int = 0  # 1-based; 0 before the first start
    lost: int = 0  # leases lost
    submitted_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    due_ms: int = 0
    result: bytes | None = None  # signed envelope of the value or exception


class Cancel(NamedTuple):
    """Client to broker: cancel (answered by ANSWER). Broker to worker: stop this lease (``request`` 0)."""

    request: int
    run_id: str
    token: str = ""


class Serve(NamedTuple):
    """The task keys a worker executes, and its labels."""

    task_keys: list[str]
    labels: dict[str, str] = {}  # noqa: RUF012


class Ready(NamedTuple):
    """Cumulative credit: RUNs up to this number may be sent on this connection."""

    limit: int


class Run(NamedTuple):
    """A leased run, numbered from 1 on each connection."""

    number: int
    run_id: str
    token: str
    task_key: str
    attempt: int  # the attempt to execute now, 1-based
    lost: int
    body: bytes


class Started(NamedTuple):
    """User code is about to start attempt ``attempt``."""

    run_id: str
    token: str
    attempt: int


class Finish(NamedTuple):
    """The terminal outcome of a run; answered by DONE."""

    run_id: str
    token: str
    type: str
    name: str
    message: str
    attempt: int
    run_seconds: float  # how long the last attempt ran
    result: bytes | None = None
    run_name: str = ""  # what the task calls this run; "": nothing of its own


class Retry(NamedTuple):
    """Run again after a delay as attempt ``attempt``; answered by DONE."""

    run_id: str
    token: str
    after_seconds: float
    attempt: int
    message: str = ""


class Release(NamedTuple):
    """Give a run back unharmed (drain, no slot); it is not counted as an attempt. Answered by DONE."""

    run_id: str
    token: str


class Done(NamedTuple):
    """Answers to FINISH, RETRY and RELEASE: [[run id, token, "ok" | "already" | "stale"], ...]."""

    answers: list[list[str]]


class Renew(NamedTuple):
    """Heartbeat: highest RUN number received and every lease the worker believes it holds."""

    highest: int
    held: list[list[str]]  # [[run id, token], ...]


class Revoke(NamedTuple):
    """Answer to RENEW (empty list: all is well), or sent alone: leases this worker no longer holds."""

    leases: list[list[str]]  # [[run id, token], ...]


class Chunk(NamedTuple):
    """A piece of a blob too long for one frame."""

    stream: int
    seq: int
    data: bytes


class Log(NamedTuple):
    run_id: str
    lines: list[list[Any]]  # [[levelno, unix ms, logger name, text], ...]


class Progress(NamedTuple):
    run_id: str
    token: str
    fraction: float
    text: str = ""


class Query(NamedTuple):
    """A question or an administrative request, answered by ANSWER with the same number."""

    request: int
    what: str
    arg: Any = None
    body: bytes | None = None  # what is to be kept, opaque


class Answer(NamedTuple):
    request: int
    ok: bool
    value: Any  # on failure [code, sentence]
    body: bytes | None = None  # what was kept, opaque


class Goodbye(NamedTuple):
    """The sender is about to close on purpose."""

    reason: str


class Error(NamedTuple):
    """A protocol error: recoverable (the connection stays) or fatal (it is closed next)."""

    code: str
    text: str
    fatal: bool = False


Message = (
    Hello | Welcome | Submit | Accepted | Refused | Watch | Unwatch | RunState | Cancel | Serve | Ready | Run
    | Started | Finish | Retry | Release | Done | Renew | Revoke | Chunk | Log | Progress | Query | Answer
    | Goodbye | Error
)  # fmt: skip

VERBS: dict[str, type[Message]] = {
    "HELLO": Hello,
    "WELCOME": Welcome,
    "SUBMIT": Submit,
    "ACCEPTED": Accepted,
    "REFUSED": Refused,
    "WATCH": Watch,
    "UNWATCH": Unwatch,
    "STATE": RunState,
    "CANCEL": Cancel,
    "SERVE": Serve,
    "READY": Ready,
    "RUN": Run,
    "STARTED": Started,
    "FINISH": Finish,
    "RETRY": Retry,
    "RELEASE": Release,
    "DONE": Done,
    "RENEW": Renew,
    "REVOKE": Revoke,
    "CHUNK": Chunk,
    "LOG": Log,
    "PROGRESS": Progress,
    "QUERY": Query,
    "ANSWER": Answer,
    "GOODBYE": Goodbye,
    "ERROR": Error,
}
"""Wire name to class; the reverse is ``VERB_OF``."""

VERB_OF: dict[type[Message], str] = {cls: verb for verb, cls in VERBS.items()}
