"""Locks by name, for transactions with the isolation level ``SERIALIZABLE``.

``prefect_lite.locking.memory``: within this process; ``.filesystem``: between the processes of a machine;
``.redis``: between all that use one broker. ``.protocol`` says what any other lock manager has to do.
"""
