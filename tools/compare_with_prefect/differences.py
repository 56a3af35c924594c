"""Where two outcomes of a program differ, and which of these differences are wanted."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DELIBERATE = Path(__file__).with_name("deliberate.toml")
LONGEST = 300

# ValueErrors of pydantic, which prefect_lite never shows its users.
OF_PYDANTIC = frozenset({"ValidationError", "PydanticSerializationError"})


@dataclass(frozen=True)
class Difference:
    """One place in what a program saw."""

    place: str  # "group.name[index][key]"
    only_words: bool  # the same kind of error or state, with another message
    prefect: Any
    lite: Any

    @property
    def program(self) -> str:
        """The program that saw it."""
        return self.place.partition("[")[0]

    def __str__(self) -> str:
        return f"{self.place}\n    Prefect  {_short(self.prefect)}\n    lite     {_short(self.lite)}"


def deliberate() -> dict[str, str]:
    """Places that differ on purpose, with the reasons."""
    return tomllib.loads(DELIBERATE.read_text())


def reason_of(difference: Difference, reasons: dict[str, str]) -> str | None:
    """The place, or one that contains it, for which a reason is given; None if there is none."""
    place = difference.place
    while place not in reasons and "[" in place:
        place = place[: place.rindex("[")]
    return place if place in reasons else None


def differences(place: str, prefect: Any, lite: Any) -> Iterator[Difference]:
    """Compare two outcomes.

    Errors are the same if ours is or extends a class of that name, states if type and name are the same;
    their texts may differ.
    """
    if isinstance(prefect, dict) and isinstance(lite, dict):
        for kind, text in (("raises", "text"), ("error", "text"), ("state", "message")):
            if kind in prefect and kind in lite:
                same = (
                    prefect[kind] == lite[kind] if kind == "state" else _public(prefect[kind]) in lite[kind]
                )
                if not same or prefect[text] != lite[text]:
                    yield Difference(place, same, prefect, lite)
                return
        if prefect.keys() == lite.keys():
            for key in prefect:
                yield from differences(f"{place}[{key}]", prefect[key], lite[key])
            return
    if isinstance(prefect, list) and isinstance(lite, list) and len(prefect) == len(lite):
        for index, (theirs, ours) in enumerate(zip(prefect, lite, strict=True)):
            yield from differences(f"{place}[{index}]", theirs, ours)
        return
    if prefect != lite:
        yield Difference(place, False, prefect, lite)


def _public(kinds: list[str]) -> str:
    """The first class of an error that users of both packages may name."""
    return next(kind for kind in kinds if not kind.startswith("_") and kind not in OF_PYDANTIC)


def _short(saw: Any) -> str:
    if isinstance(saw, dict):
        for kind, shown in (("raises", "raises {}"), ("error", "{}")):
            if kind in saw:
                return f"{shown.format(saw[kind][0])}: {saw['text']}"[:LONGEST].replace("\n", " ")
        if "state" in saw:
            return f"<{saw['state']} {saw['message']!r}>"[:LONGEST]
    return json.dumps(saw)[:LONGEST]
