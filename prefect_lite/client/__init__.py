"""This process's connection to the broker, shared by all its threads and event loops.

``runtime.py`` owns the loop thread, ``connection.py`` keeps a connection up, ``latch.py`` lets threads and
coroutines wait for what happens there.
"""
