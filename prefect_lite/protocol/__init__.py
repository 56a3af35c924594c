"""The wire protocol, without I/O but for ``pump.py``; shared by client, worker and broker.

::

    messages.py ........ one immutable class per verb
    checks.py .......... what their fields may hold
    codec.py ........... messages <-> frames
    roles.py ........... who may send what
    outbox.py .......... what waits to be sent; batches, urgent verbs, CHUNK streams
    inbox.py ........... CHUNK streams put together again
    session.py ......... what both sides share: errors, heartbeat
    leases.py .......... a worker's leases, credit and unanswered commits
    peer_session.py .... client and worker side; survives connections
    broker_session.py .. broker side of one connection
    frames.py .......... websocket frames, cut and made by hand
    pump.py ............ between a session and a websocket
"""
