"""An authority that signs certificates, and an issuer that signs tokens, for the tests of TLS and OAUTHBEARER."""

import datetime
import ipaddress
import json
import ssl
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    return key, signed("authority", key.public_key(), key, None)


def signed(
    name: str, public: ec.EllipticCurvePublicKey, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None
) -> x509.Certificate:
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme, Inc"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def written(folder: Path, name: str, issuer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate]) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = signed(name, key.public_key(), issuer[0], issuer[1])
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


ISSUER, AUDIENCE = "https://id.example", "sluice"


class Keys:
    """An authority with a server's certificate and a client's, and a client's certificate of another authority."""

    def __init__(self, folder: Path) -> None:
        self.issuer = authority()
        self.ca = folder / "ca.crt"
        self.server = written(folder, "server", self.issuer)
        self.client = written(folder, "client", self.issuer)
        self.stranger = written(folder / "stranger", "client", authority())
        self.ca.write_bytes(self.issuer[1].public_bytes(serialization.Encoding.PEM))

    def context(self, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """For a connection to the server, with or without a client's certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if client is not None:
            context.load_cert_chain(*client)
        return context


CLIENT = "User:CN=client,O=Acme\\, Inc"
"""The principal of the client's certificate (RFC 2253)."""


class TokenIssuer:
    """Signs tokens; its public key lies in a JWKS file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rotate("one")

    def rotate(self, kid: str) -> None:
        self.kid, self.key = kid, ec.generate_private_key(ec.SECP256R1())
        jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        self.path.write_text(json.dumps({"keys": [{**jwk, "kid": kid, "alg": "ES256", "use": "sig"}]}))

    def token(self, **claims: Any) -> str:
        now = time.time()
        usual = {"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 60}
        return jwt.encode({**usual, **claims}, self.key, algorithm="ES256", headers={"kid": self.kid})
