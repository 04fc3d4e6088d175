"""HTTP/2 (RFC 9113) for a server whose clients are strangers; knows nothing of what is served.

==========  ===============================================================================
limits      how much a client may use, and how long it may take
frames      frames from bytes, and bytes from frames
headers     header blocks (HPACK, RFC 7541), judged
stream      a request and its answer, as what lies above sees it
output      what is written when, within windows and buffers
memory      the account of bytes that bodies hold
lifetime    a connection's streams, and how they and it end
connection  what the peer sends, judged
server      the connections of a server: what they share
==========  ===============================================================================
"""
