"""``prefect-lite demo``: a broker, a worker and real work in a home of its own.

``tasks.py`` is what the worker serves, ``scenario.py`` what the client submits and checks, ``run.py`` starts
and ends the processes around it, and ``report.py`` prints the table.
"""
