"""HTTP/1.1 and HTTP/2 clients over non-blocking connections."""
