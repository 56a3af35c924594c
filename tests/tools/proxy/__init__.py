"""A TCP or unix-socket proxy that makes every kind of trouble a network makes.

    proxy = Proxy(target="/run/valkey.sock")        # or ("127.0.0.1", 4200)
    await proxy.start("/tmp/proxy.sock")            # or start(("127.0.0.1", 0)); see ``address``

    proxy.cut()                                     # every connection gets an orderly end (FIN), now
    proxy.reset()                                   # ... or a reset (RST)
    proxy.half_close("up")                          # the target hears FIN; the way back stays
    proxy.hold("down")                              # a stall: nothing passes, nothing is lost
    proxy.black_hole()                              # all that comes is lost, ends of connections too
    proxy.release()                                 # the end of both; what has lost bytes is reset
    proxy.delay("both", 0.2, jitter=0.05)           # latency; pieces stay in order
    proxy.limit("up", 500_000)                      # bytes/s, shared by all connections
    proxy.slice("both", 1)                          # one byte at a time, each flushed
    proxy.refuse(True)                              # accept and close at once
    proxy.cut_next_reply(b"EVALSHA")                # executed, but the caller never hears of it
    proxy.cut_next_request(b"EVALSHA")              # never arrives
    proxy.hold("up", links=[proxy.links[0]])        # any of these for some connections only
    await proxy.close()

``up`` is from the caller to the target, ``down`` the way back, ``both`` is both. A one-way cut that nobody is
told of is ``black_hole("up")``. Trouble without ``links`` is for all connections, those to come as well.
Everything runs on one event loop. From a shell: ``python -m tests.tools.proxy --help``.
"""

from tests.tools.proxy.flow import Address, Direction, Trouble
from tests.tools.proxy.link import Link
from tests.tools.proxy.proxy import Counters, Proxy

__all__ = ["Address", "Counters", "Direction", "Link", "Proxy", "Trouble"]
