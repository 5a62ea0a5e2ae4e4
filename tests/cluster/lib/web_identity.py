"""Usage: web_identity.py JWKS ISSUER [moto_server's arguments…]

moto, with what AWS does and moto does not: a token that a known issuer signed (JWKS: its keys) is looked at before it
is taken for a role. Its audience has to be AWS's, and the role that of its service account: named NAMESPACE-ACCOUNT.
(https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html)
"""

import base64
import json
import sys
import time

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from moto import server
from moto.sts.exceptions import STSClientError
from moto.sts.responses import TokenResponse

AUDIENCE = "sts.amazonaws.com"
PREFIX = "system:serviceaccount:"


class Checked:
    """Stands in for moto's own answer, which any text as a token satisfies."""

    def __init__(self, keys, issuer, answer):
        self.keys, self.issuer, self.answer = keys, issuer, answer

    def __call__(self, response):
        self.check(response._get_param("WebIdentityToken") or "", response._get_param("RoleArn") or "")
        return self.answer(response)

    def check(self, token, role):
        try:
            claims = jwt.decode(token, self.keys, algorithms=["RS256", "ES256"]).claims
        except (JoseError, ValueError):
            if unverified(token).get("iss") != self.issuer:
                return  # of an issuer that we know nothing of
            raise STSClientError("InvalidIdentityTokenException", "The signature is not the issuer's") from None
        if claims.get("exp", 0) < time.time():
            raise STSClientError("ExpiredTokenException", "Token expired")
        audiences = claims.get("aud", [])
        if AUDIENCE not in ([audiences] if isinstance(audiences, str) else audiences):
            raise STSClientError("InvalidIdentityTokenException", "Incorrect token audience")
        account = claims.get("sub", "").removeprefix(PREFIX)
        if role.rpartition("/")[2] != account.replace(":", "-"):
            raise STSClientError("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")


def unverified(token):
    """The claims of what may be no token at all."""
    try:
        payload = token.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}


keys, issuer, *arguments = sys.argv[1:]
with open(keys, encoding="ascii") as file:
    known = KeySet.import_key_set(json.load(file))
checked = Checked(known, issuer, TokenResponse.assume_role_with_web_identity)
TokenResponse.assume_role_with_web_identity = lambda response: checked(response)
server.main(arguments)
