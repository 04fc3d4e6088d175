"""HTTP/1.1 (RFC 9112) for a server whose clients are strangers; knows nothing of what is served.

==========  ===============================================================================
limits      how much a client may use, and how long it may take
messages    a request and a response
head        the bytes of a request's head, and of trailers, judged
chunks      a chunked body, as it arrives
coding      gzip, bounded
memory      the account of bytes that bodies hold
connection  one connection: what arrives, what is answered, and when it ends
server      the connections of a server: what they share, and how they learn that it stops
==========  ===============================================================================
"""
