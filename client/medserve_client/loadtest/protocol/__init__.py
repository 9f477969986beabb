"""HTTP/1.1 and HTTP/2 over connections that neither block nor wait."""
