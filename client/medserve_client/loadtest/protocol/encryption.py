"""TLS over memory buffers, for non-blocking connections."""

import ssl

from medserve_client.channel import Tls

_READ_BYTES = 1 << 16


def client_context(tls: Tls, protocol: str) -> ssl.SSLContext:
    """Returns a TLS context with these certificates that offers the protocol in ALPN.

    Raises:
        OSError: a file cannot be read or has no certificate or key.
    """
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.certificate is not None:
        # Without a password, OpenSSL would prompt on the terminal for that of an encrypted key.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    context.set_alpn_protocols([protocol])
    return context


class Encryption:
    """Encrypts and decrypts the data of one connection."""

    def __init__(self, context: ssl.SSLContext, host: str, protocol: str) -> None:
        """Starts a handshake.

        Args:
            context: context from `client_context`.
            host: name or address that the server's certificate must match.
            protocol: protocol that the server must select, if it selects one.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._protocol = protocol
        self.established = False
        """Whether the handshake is complete."""

    def encrypt(self, plain: bytearray) -> bytes:
        """Consumes plaintext, once the handshake is complete, and returns the bytes to send.

        Raises:
            ssl.SSLError: the handshake failed.
        """
        self._shake_hands()
        if self.established:
            while plain:
                del plain[: self._tls.write(plain)]
        return self._outgoing.read()

    def decrypt(self, received: bytes) -> bytes:
        """Returns the plaintext of the records received completely.

        Raises:
            ssl.SSLError: the handshake failed, or a record is corrupt.
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
        """Returns the pending alert, which tells the server why the handshake failed."""
        return self._outgoing.read()

    def _shake_hands(self) -> None:
        if self.established:
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        if self._tls.selected_alpn_protocol() not in (self._protocol, None):
            raise ssl.SSLError(f"the server selected {self._tls.selected_alpn_protocol()} instead of {self._protocol}")
        self.established = True
