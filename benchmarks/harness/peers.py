"""The peers' declarations, found by folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from harness.declaration import Peer

FOLDER = Path(__file__).parents[1] / "peers"
SHARED = FOLDER / "shared"


def peer_names() -> list[str]:
    """The folders that hold a declaration; prefect_lite first, the others by name."""
    names = sorted(path.parent.name for path in FOLDER.glob("*/peer.py"))
    return sorted(names, key=lambda name: name != "prefect_lite")


def load_peer(name: str) -> Peer:
    """The declaration of one peer.

    Raises:
        ValueError: There is none, or it names another folder.
    """
    path = FOLDER / name / "peer.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_peer_{name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"no peer named {name!r}; there are {', '.join(peer_names())}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    peer = module.PEER
    if not isinstance(peer, Peer) or peer.name != name:
        raise ValueError(f"{path} declares no PEER named {name!r}")
    return peer
