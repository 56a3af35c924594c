"""What a peer says about itself: how it is installed, started and tuned, and what it cannot do.

A peer's ``peer.py`` holds one ``PEER``. It is read by the harness and never imports the peer's library.
In every argv and environment value these placeholders are filled in: ``{python}`` (the interpreter of the
peer's venv), ``{bin}`` (that venv's folder of programs), ``{dir}`` (the peer's folder) and ``{scratch}``
(a private, empty folder of the session).
"""

from __future__ import annotations

from dataclasses import dataclass, field

CASES = ("A", "B", "C", "D", "E")
"""The cases that every peer is measured in, or says in ``skips`` why not."""

LAYOUTS = ("noop", "roundtrip", "sleep100", "sleep1000")
KINDS = ("async", "sync")
MODES = ("bulk", "loop1", "loop8")


@dataclass(frozen=True)
class Layout:
    """How the worker tree is run for one purpose.

    Attributes:
        concurrency: Runs at a time that this layout can execute.
        workers: argv of each process to start.
        settings: What was set and why (the documentation's advice), one sentence or two, for the report.
    """

    concurrency: int
    workers: tuple[tuple[str, ...], ...]
    settings: str


@dataclass(frozen=True)
class Peer:
    """One library that does the same work.

    Attributes:
        name: The folder below ``benchmarks/peers``.
        title: The name in the report.
        requirements: pip requirements with exact versions; empty means the venv that runs the harness.
        layouts: "noop" (throughput, costs, payloads and round trips), "sleep100" and "sleep1000". A missing
            one skips its case; ``skips`` says why. "roundtrip" is for a library whose round trips are
            quicker with another worker than its throughput.
        kinds: Of "async" and "sync": the kinds of tasks that the library runs natively.
        modes: Of "bulk", "loop1" and "loop8": the ways of enqueuing that are measured.
        skips: Case ("C"), or case and variant ("C/10000@1000", "A/async", "E/first_run"), to the reason.
        settings: Settings of client and broker, and why.
        redis: Whether it needs the private Valkey (prefect_lite and Prefect bring their own storage).
        distributions: Whose versions the report names.
        environ: More environment for all its processes.
        pace: A guess of its no-op runs per second, in thousands, for the first calibration.
        brokers: argv of processes that stand between client and worker, started first and counted as broker.
    """

    name: str
    title: str
    requirements: tuple[str, ...]
    layouts: dict[str, Layout]
    kinds: tuple[str, ...]
    modes: tuple[str, ...]
    skips: dict[str, str]
    settings: str
    redis: bool = True
    distributions: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict[str, str])
    pace: float = 1.0
    brokers: tuple[tuple[str, ...], ...] = ()

    def skip_reason(self, case: str, variant: str = "") -> str | None:
        """The declared reason not to measure this variant; one for "A/async" covers "A/async/bulk" too."""
        parts = [case, *variant.split("/")] if variant else [case]
        for length in range(1, len(parts) + 1):
            reason = self.skips.get("/".join(parts[:length]))
            if reason is not None:
                return reason
        return None
