"""TLS for a connection that neither blocks nor waits."""

import ssl

from medserve_client.channel import Tls

_READ_BYTES = 1 << 16


def client_context(tls: Tls, protocol: str) -> ssl.SSLContext:
    """Reads the certificates, and offers a server this protocol (ALPN).

    Raises:
        OSError: a file can't be read, or does not hold what it should.
    """
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    context.set_alpn_protocols([protocol])
    return context


class Encryption:
    """Turns what one connection sends into TLS records, and what it receives into plain bytes."""

    def __init__(self, context: ssl.SSLContext, host: str, protocol: str) -> None:
        """Begins a handshake.

        Args:
            context: of `client_context`.
            host: name or address that the server's certificate must be for.
            protocol: that the server must have chosen, if it chooses one.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._protocol = protocol
        self.established = False
        """Whether the handshake is over."""

    def encrypt(self, plain: bytearray) -> bytes:
        """Takes plain bytes, except before the handshake is over, and returns what there is to send.

        Raises:
            ssl.SSLError: the handshake failed.
        """
        self._shake_hands()
        if self.established:
            while plain:
                del plain[: self._tls.write(plain)]
        return self._outgoing.read()

    def decrypt(self, received: bytes) -> bytes:
        """Returns the plain bytes in what was received, as far as they have come.

        Raises:
            ssl.SSLError: the handshake failed, or the records are damaged.
        """
        self._incoming.write(received)
        self._shake_hands()
        if not self.established:
            return b""
        plain = []
        try:
            while data := self._tls.read(_READ_BYTES):
                plain.append(data)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return b"".join(plain)

    def alert(self) -> bytes:
        """What tells the server why a handshake failed."""
        return self._outgoing.read()

    def _shake_hands(self) -> None:
        if self.established:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        if self._tls.selected_alpn_protocol() not in (self._protocol, None):
            raise ssl.SSLError(f"the server chose {self._tls.selected_alpn_protocol()} instead of {self._protocol}")
        self.established = True
