"""Users of Mooring: the settings that know them, and the header that lets a request in as one."""

import base64
import http.client
import json
import os
import re
import subprocess
import time
import urllib.parse

from machine import MOORING, Failed

ISSUER = "https://login.example.org"
AUDIENCE = "bench"


class ByKey:
    """The only user of a new file, with his key, as scripts send it."""

    def __init__(self, folder):
        self.file = os.path.join(folder, "users")
        added = subprocess.run([MOORING, "users", "add", "bench", "--file", self.file],
                               check=True, capture_output=True, text=True)
        self.key = added.stdout.split()[-1]

    def settings(self):
        return ["auth.mode=keys", f"auth.users_file={self.file}"]

    def line(self, _address):
        return f"Authorization: Bearer {self.key}"


class BySession(ByKey):
    """The cookies of a browser in which he has logged in."""

    def line(self, address):
        cookies = {}
        page = ask(address, cookies, "GET", "/-/login")
        token = re.search(r'name="token" value="([^"]*)"', page).group(1)
        form = urllib.parse.urlencode({"token": token, "next": "/", "key": self.key})
        ask(address, cookies, "POST", "/-/login", form)
        if not any("session" in name for name in cookies):
            raise Failed(f"the login gave no session, but {', '.join(cookies) or 'nothing'}")
        return "Cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items())


class ByToken:
    """A token signed with ES256, of about the size that login servers give."""

    def __init__(self, folder):
        self.private = os.path.join(folder, "private.pem")
        self.public = os.path.join(folder, "public.pem")
        run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout",
             "-out", self.private])
        run(["openssl", "ec", "-in", self.private, "-pubout", "-out", self.public])

    def settings(self):
        return ["auth.mode=jwt", f"auth.jwt.issuer={ISSUER}", f"auth.jwt.audience={AUDIENCE}",
                f"auth.jwt.keys_file={self.public}"]

    def line(self, _address):
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "bench", "iat": now, "exp": now + 3600,
                  "name": "A Bench", "email": "bench@example.org", "jti": os.urandom(16).hex()}
        said = ".".join(encoded(json.dumps(part).encode())
                        for part in ({"alg": "ES256", "typ": "JWT"}, claims))
        der = run(["openssl", "dgst", "-sha256", "-sign", self.private], said.encode())
        return f"Authorization: Bearer {said}.{encoded(joined(der))}"


def run(command, given=None):
    return subprocess.run(command, input=given, check=True, capture_output=True).stdout


def encoded(data):
    """base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def joined(der):
    """The two integers of a signature in DER, 32 bytes each (RFC 7518, section 3.4)."""
    parts, at = b"", 2
    for _ in range(2):
        length = der[at + 1]
        parts += der[at + 2:at + 2 + length].lstrip(b"\0").rjust(32, b"\0")
        at += 2 + length
    return parts


def ask(address, cookies, method, path, body=None):
    """One request of a browser; keeps the cookies that it gets."""
    connection = http.client.HTTPConnection(address, timeout=20)
    headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate",
               "Accept": "text/html", "Origin": f"http://{address}",
               "Content-Type": "application/x-www-form-urlencoded",
               "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    for line in answer.headers.get_all("set-cookie") or []:
        name, _, value = line.split(";")[0].partition("=")
        cookies[name] = value
    text = answer.read().decode()
    connection.close()
    return text
