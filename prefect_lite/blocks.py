"""Saved configuration: objects that the broker keeps under a name, such as storages.

::

    LocalFileSystem(basepath="/srv/results").save("mine")
    LocalFileSystem.load("mine")                   # here, or in any process with the same broker and keyring
    Block.load("local-file-system/mine")

In coroutines these are to be awaited, or their twins ``asave``, ``aload`` and ``adelete``.
"""

from __future__ import annotations

import inspect
import re
import sys
from abc import ABC
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from prefect_lite import block_documents
from prefect_lite.block_documents import SLUG
from prefect_lite.block_names import block_id, check_name, no_such_block, reading_document
from prefect_lite.either_way import as_called
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.thread_or_loop import Waits, on_loop

if TYPE_CHECKING:
    from collections.abc import Generator

    from prefect_lite.either_way import IdToAwait, NoneToAwait

B = TypeVar("B", bound="Block")


class Block(BaseModel, ABC):  # noqa: PLW1641 - its fields can change
    """Base of what can be saved by name. A subclass is known by its slug from when it is defined.

    The slug is made of ``_block_type_name``, else of the class's name in lower case, unless the class sets
    ``_block_type_slug``. Saved blocks are signed, but not encrypted: whoever may read the broker's Redis may
    read them. So secrets (``SecretStr``) are not saved; take them from the environment, in a field with
    ``exclude=True`` and a ``default_factory``.
    """

    model_config = ConfigDict(extra="forbid")

    _block_type_name: ClassVar[str | None] = None
    _block_type_slug: ClassVar[str | None] = None

    _block_document_name: str | None = PrivateAttr(None)
    _block_document_id: UUID | None = PrivateAttr(None)
    _saved_fields: dict[str, Any] | None = PrivateAttr(None)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        slug = cls.get_block_type_slug()
        check_name(slug, "slug")
        if not inspect.isabstract(cls):
            _registry[slug] = cls

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_slug(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Fields of a saved block say which class they are of: a field's type may be a base class."""
        if not isinstance(value, dict) or SLUG not in value:
            return handler(value)
        fields = dict(cast("dict[str, Any]", value))
        known = block_class(fields.pop(SLUG))
        if not issubclass(known, cls):
            raise ValueError(f"{known.__name__} is no {cls.__name__}")
        return handler(fields) if known is cls else known.model_validate(fields)

    @model_serializer(mode="wrap")
    def _with_its_slug(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        fields = handler(self)
        if info.context is not block_documents.INSIDE:
            return fields
        return {**fields, SLUG: self.get_block_type_slug()}

    def __eq__(self, other: object) -> bool:
        """Of one class, with equal fields; under which names they are saved does not matter."""
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).model_fields)

    # -- what kind it is --------------------------------------------------------------------------

    @classmethod
    def get_block_type_name(cls) -> str:
        """What people read."""
        return cls.__dict__.get("_block_type_name") or cls.__name__

    @classmethod
    def get_block_type_slug(cls) -> str:
        """The first half of the name that it is saved by."""
        slug = cls.__dict__.get("_block_type_slug")
        return slug or re.sub(r"[^a-z0-9]+", "-", cls.get_block_type_name().lower()).strip("-")

    # -- saved by name ----------------------------------------------------------------------------

    if TYPE_CHECKING:  # so that type checkers take both `load(name)` and `await load(name)`

        def __await__(self) -> Generator[Any, Any, Self]: ...

    def save(self, name: str | None = None, overwrite: bool = False) -> IdToAwait:
        """Have the broker keep it; in coroutines to be awaited, as ``load`` and ``delete``.

        Args:
            name: Lower-case letters, digits and dashes. None: the name it was saved or loaded by.
            overwrite: Replace what is saved by this name.

        Returns:
            Its id, which depends on nothing but its kind, its name and the namespace.

        Raises:
            ConfigurationError: The name is not possible or taken, or a field can't be saved.
            PrefectException: The broker can't be asked, see ``prefect_lite.client.keeping``.
        """
        return as_called(saving(self, name, overwrite))

    async def asave(self, name: str | None = None, overwrite: bool = False) -> UUID:
        """``save`` for coroutines."""
        return await on_loop(saving(self, name, overwrite))

    @classmethod
    def load(cls, name: str) -> Self:
        """A saved one.

        Args:
            name: Its name; of ``Block`` and of bases ``slug/name``.

        Raises:
            ConfigurationError: There is none, or it is of another kind.
            EnvelopeRejected: It is damaged, or was not signed with a key of this process.
            PrefectException: The broker can't be asked.
        """
        return as_called(_loading(cls, name))

    @classmethod
    async def aload(cls, name: str) -> Self:
        """``load`` for coroutines."""
        return await on_loop(_loading(cls, name))

    @classmethod
    def delete(cls, name: str) -> NoneToAwait:
        """Forget a saved one; results in a storage stay where they are.

        Args:
            name: As for ``load``.

        Raises:
            ConfigurationError: There is none.
            PrefectException: The broker can't be asked.
        """
        return as_called(deleting(*_split(cls, name)))

    @classmethod
    async def adelete(cls, name: str) -> None:
        """``delete`` for coroutines."""
        await on_loop(deleting(*_split(cls, name)))


_registry: dict[str, type[Block]] = {}


def block_class(slug: str, module: str | None = None) -> type[Block]:
    """The class with a slug.

    Args:
        slug: Its slug.
        module: To be imported if no class here has it; its name must be from signed data.

    Raises:
        ConfigurationError: There is none in this process.
    """
    if slug not in _registry:
        block_documents.import_home(slug, module)
    found = _registry.get(slug)
    if found is None:
        names = ", ".join(sorted(_registry))
        raise ConfigurationError(
            f"No class of blocks has the slug {slug!r}; known are {names}. If it is one of your own, the "
            f"module that defines it must be imported first."
        )
    return found


def saved_name(block: Block) -> str | None:
    """``slug/name`` of what was saved or loaded, None if it was not, or has other fields since."""
    name = block._block_document_name  # pyright: ignore[reportPrivateUsage]
    if name is None or block.model_dump() != block._saved_fields:  # pyright: ignore[reportPrivateUsage]
        return None
    return f"{block.get_block_type_slug()}/{name}"


def saving(block: Block, name: str | None, overwrite: bool) -> Waits[UUID]:
    """``Block.save``, to be waited for."""
    from prefect_lite.client import keeping

    if name is None:
        name = block._block_document_name  # pyright: ignore[reportPrivateUsage]
        if name is None:
            raise ConfigurationError(
                f"A {type(block).__name__} needs a name to be saved by: save('my-name')."
            )
    slug = block.get_block_type_slug()
    check_name(name)
    document = block_documents.sealed(block, slug, name)
    if not (yield from keeping.save_block(slug, name, document, overwrite)):
        raise ConfigurationError(
            f"There is a saved {slug}/{name} already. Use save({name!r}, overwrite=True) to replace it."
        )
    _forget(f"{slug}/{name}")
    return _named(block, slug, name)


def loading(slug: str, name: str, base: type[Block] = Block) -> Waits[Block]:
    """The saved ``slug/name``, to be waited for. Raises like ``Block.load``."""
    content = block_documents.opened((yield from reading_document(slug, name)), slug, name)
    kind = block_class(slug, content.module)
    if not issubclass(kind, base):
        raise ConfigurationError(
            f"The saved {slug}/{name} is a {kind.__name__}, which is no {base.__name__}."
        )
    block = block_documents.rebuilt(kind, content.fields, f"{slug}/{name}")
    _named(block, slug, name)
    return block


def deleting(slug: str, name: str) -> Waits[None]:
    """``Block.delete``, to be waited for."""
    from prefect_lite.client import keeping

    check_name(slug, "slug")
    check_name(name)
    if not (yield from keeping.drop_block(slug, name)):
        raise (yield from no_such_block(slug, name))
    _forget(f"{slug}/{name}")


def _forget(path: str) -> None:
    """What this process saves or deletes shows here at once."""
    remembering = sys.modules.get("prefect_lite.result_storage")
    if remembering is not None:
        remembering.forget_saved(path)


def _named(block: Block, slug: str, name: str) -> UUID:
    block._block_document_name = name  # pyright: ignore[reportPrivateUsage]
    block._block_document_id = block_id(slug, name)  # pyright: ignore[reportPrivateUsage]
    block._saved_fields = block.model_dump()  # pyright: ignore[reportPrivateUsage]
    return block._block_document_id  # pyright: ignore[reportPrivateUsage]


def _loading(kind: type[B], name: str) -> Waits[B]:
    return cast(B, (yield from loading(*_split(kind, name), base=kind)))


def _split(kind: type[Block], name: str) -> tuple[str, str]:
    """(slug, name) of what a class is asked for."""
    slug, slash, rest = name.partition("/")
    if slash:
        return slug, rest
    if _registry.get(kind.get_block_type_slug()) is not kind:
        raise ConfigurationError(
            f"{kind.__name__} stands for many kinds of blocks: give the kind too, as in "
            f"'local-file-system/{name}'."
        )
    return kind.get_block_type_slug(), name
