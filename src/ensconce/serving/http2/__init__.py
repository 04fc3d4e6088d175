"""HTTP/2 for servers (RFC 9113): frames, streams, flow control and limits; what streams carry is others' business."""
