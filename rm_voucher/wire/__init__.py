"""What goes over the wire, without I/O: a request to build and an answer to parse."""
