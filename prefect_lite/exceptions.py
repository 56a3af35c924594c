"""Every exception a user can meet, in one tree.

::

    PrefectException
    ├── PrefectLiteError ........... ours; each carries a sentence that says what to do next
    │   ├── ConfigurationError ..... a setting or option has an impossible value
    │   │   ├── OptionTypeError .... or one of a wrong type (also a TypeError)
    │   │   └── InvalidNameError ... or a name that has characters which it can't have
    │   ├── BrokerError
    │   │   ├── BrokerUnreachable .. no broker answered within the connect timeout
    │   │   ├── AuthenticationFailed (401/403: the token is wrong; never retried)
    │   │   ├── ProtocolVersionError the broker speaks another protocol version
    │   │   ├── StoreUnavailable ... the broker is up, its Redis is not
    │   │   └── EmbeddedStartError . the local broker could not be started
    │   ├── SubmitError ............ a run was not accepted
    │   │   ├── QueueFull
    │   │   ├── PayloadTooLarge
    │   │   ├── IdempotencyConflict
    │   │   └── OptionNotPortable
    │   ├── SerializationError ..... a value cannot be encoded or decoded
    │   │   └── EnvelopeRejected ... unsigned, altered or meant for something else
    │   ├── RunExpired ............. no record of this run is left
    │   ├── DuplicateTaskKey
    │   ├── WorkerStuck ............ too many threads of a worker are stuck in code that does not let go
    │   ├── BatchError ............. several runs of a batch were refused
    │   └── RemoteError ............ stands for an exception that could not be rebuilt here
    ├── ObjectNotFound ............. the client knows no such run
    ├── MissingResult ── ResultDamaged
    ├── StorageError ............... a result storage can't be reached, read or written
    ├── TransactionError, LockLost, HashError
    ├── VisualizationUnsupportedError, FlowVisualizationError
    ├── GraphvizImportError, GraphvizExecutableNotFoundError
    ├── UnfinishedRun, PausedRun
    ├── FailedRun ── UpstreamFailedRun (also an UpstreamTaskError)
    ├── CrashedRun, CancelledRun
    ├── TaskRunTimeoutError, FlowRunTimeoutError (TimeoutError)
    ├── MissingContextError (RuntimeError)
    ├── ParameterTypeError, SignatureMismatchError
    ├── ParameterBindError (TypeError), ReservedArgumentError (TypeError)
    └── MappingLengthMismatch, MappingMissingIterable

``TimeoutError`` stays Python's own: ``result(timeout=...)`` raises it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_lite.futures import PrefectFuture, PrefectFutureList
    from prefect_lite.states import State


class PrefectException(Exception):
    """Base of everything raised by this package."""


class PrefectLiteError(PrefectException):
    """Base of the errors that Prefect itself does not have."""


class ConfigurationError(PrefectLiteError, ValueError):
    """A setting or a task option has an impossible value."""


class InvalidNameError(ConfigurationError):
    """A name has characters that names can't have."""


class OptionTypeError(ConfigurationError, TypeError):
    """An option has a value of a wrong type; a ``TypeError`` too, as Prefect raises for it."""


class BrokerError(PrefectLiteError):
    """Something between this process and the store."""


class BrokerUnreachable(BrokerError, ConnectionError):
    """No broker answered within the connect timeout."""


class AuthenticationFailed(BrokerError):
    """The broker refused the token (HTTP 401 or 403); repeating can't help."""


class ProtocolVersionError(BrokerError):
    """Broker and peer have no protocol version in common."""


class StoreUnavailable(BrokerError):
    """The broker is up, but its Redis did not answer in time."""


class EmbeddedStartError(BrokerError):
    """The local broker or its Valkey server could not be started."""


class SubmitError(PrefectLiteError):
    """A run was not accepted; nothing was stored.

    Attributes:
        run_id: Id of the refused run, 32 hex digits.
        code: Machine code of the refusal.
    """

    def __init__(self, text: str, *, run_id: str = "", code: str = "") -> None:
        super().__init__(text)
        self.run_id = run_id
        self.code = code


class QueueFull(SubmitError):
    """A queue limit is reached, or too many runs of this process wait for a broker's word.

    Attributes:
        retry_after_seconds: When the broker suggests to try again.
        waited_seconds: For how long the run was sent again, or waited to be sent.
    """

    retry_after_seconds: float = 1.0
    waited_seconds: float = 0.0


class PayloadTooLarge(SubmitError):
    """Arguments or a result are over ``max_payload_bytes``."""


class IdempotencyConflict(SubmitError):
    """The same run id or idempotency key came with other arguments."""


class OptionNotPortable(SubmitError):
    """An option changed by ``with_options`` is a callable, which can't travel with a run."""


class SerializationError(PrefectLiteError):
    """A value can't be encoded or decoded."""


class EnvelopeRejected(SerializationError):
    """A payload is unsigned, altered, signed by an unknown key, or meant for another run."""


class RunExpired(PrefectLiteError):
    """The broker has no record of this run (any more)."""


class DuplicateTaskKey(PrefectLiteError, ValueError):
    """Two different tasks with one key can't be served together."""


class WorkerStuck(PrefectLiteError):
    """Too many threads of a worker are stuck in code that does not let go; only the process's end frees them.

    Raised where the process is not the worker's to end: by ``aserve``, and by ``serve`` off the main thread.
    """


class BatchError(PrefectLiteError):
    """Some runs of a batch were refused.

    Attributes:
        errors: The refusals, by run id (32 hex digits).
        futures: Of the runs that were accepted, in the order of the calls.
    """

    def __init__(
        self, text: str, errors: dict[str, Exception], futures: PrefectFutureList[Any] | None = None
    ) -> None:
        super().__init__(text)
        self.errors = errors
        self.futures: list[PrefectFuture[Any]] = [] if futures is None else futures


class RemoteError(PrefectLiteError):
    """Stands in for a remote exception that can't be rebuilt in this process.

    Attributes:
        type_name: Qualified name of the original type.
        remote_message: ``str()`` of the original.
        remote_traceback: Formatted traceback of the worker.
    """

    def __init__(self, type_name: str, remote_message: str = "", remote_traceback: str = "") -> None:
        super().__init__(type_name, remote_message, remote_traceback)
        self.type_name = type_name
        self.remote_message = remote_message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.remote_message}"


class RemoteTraceback(Exception):
    """The ``__cause__`` of an exception that was raised on a worker: its traceback as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class ObjectNotFound(PrefectException):
    """There is no record of what was asked for."""


class MissingResult(PrefectException):
    """A completed run has no result to give."""


class ResultDamaged(MissingResult):
    """A stored result is not what was stored: altered, unsigned, cut off, or signed with an unknown key."""


class StorageError(PrefectException):
    """A result storage can't be reached, read or written."""


class TransactionError(PrefectException):
    """A transaction can't do what was asked of it in its state."""


class LockLost(PrefectException):
    """A lock has run out while its holder worked, and somebody else may have it."""


class HashError(PrefectException, ValueError):
    """Values can't be hashed, so no cache key can be made of them."""


class VisualizationUnsupportedError(PrefectException):
    """Something can't be done while a flow is drawn."""


class FlowVisualizationError(PrefectException):
    """A flow can't be drawn."""


class GraphvizImportError(PrefectException):
    """The package that draws flows is not installed."""


class GraphvizExecutableNotFoundError(PrefectException):
    """The program that draws flows is not installed."""


class UnfinishedRun(PrefectException):
    """A result was asked of a run that has not ended."""


class PausedRun(PrefectException):
    """A result was asked of a run that is paused.

    Attributes:
        state: The paused state.
    """

    def __init__(self, *args: Any, state: State[Any] | None = None) -> None:
        super().__init__(*args)
        self.state = state


class FailedRun(PrefectException):
    """A run ended without a result."""


class CrashedRun(PrefectException):
    """A run's workers died until no lease was left."""


class CancelledRun(PrefectException):
    """A run was cancelled or expired before it ended."""


class UpstreamTaskError(PrefectException):
    """What a run depends on did not complete; Prefect's name for ``UpstreamFailedRun``."""


class UpstreamFailedRun(FailedRun, UpstreamTaskError):
    """A run this one waited for did not complete."""


class TaskRunTimeoutError(TimeoutError, PrefectException):
    """A run was stopped at its ``timeout_seconds``; its state is ``TimedOut``."""


class FlowRunTimeoutError(TimeoutError, PrefectException):
    """A flow run was stopped at its ``timeout_seconds``; its state is ``TimedOut``."""


class MissingContextError(PrefectException, RuntimeError):
    """Something that works inside a run only was used outside of one."""


class ParameterTypeError(PrefectException):
    """An argument does not fit its annotation, or holds futures where they can't be replaced."""


class SignatureMismatchError(PrefectException, TypeError):
    """Parameters don't match the function's signature."""


class ParameterBindError(TypeError, PrefectException):
    """Arguments don't bind to the function's signature."""


class ReservedArgumentError(PrefectException, TypeError):
    """A function uses a parameter name that calls reserve."""


class MappingLengthMismatch(PrefectException):
    """``map`` got iterables of different lengths."""


class MappingMissingIterable(PrefectException):
    """``map`` got no iterable."""
