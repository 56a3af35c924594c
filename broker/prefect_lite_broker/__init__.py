"""The broker of prefect_lite: stateless, between websockets and Redis.

It never decodes a payload and never loads tasks or cloudpickle. ``app.py`` puts it together; ``verbs.py``
is what peers can ask for; ``store.py`` is what it asks of Redis.
"""
