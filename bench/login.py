"""A user of Mooring, and how requests are let in as his."""

import http.client
import re
import subprocess
import urllib.parse

from machine import MOORING, Failed


class User:
    """The only user of a new file."""

    def __init__(self, file):
        self.file = file
        added = subprocess.run([MOORING, "users", "add", "bench", "--file", file],
                               check=True, capture_output=True, text=True)
        self.key = added.stdout.split()[-1]


def by_key(user, _address):
    """The header with his key, as scripts send it."""
    return f"Authorization: Bearer {user.key}"


def by_session(user, address):
    """The cookies of a browser in which he has logged in."""
    cookies = {}
    page = ask(address, cookies, "GET", "/-/login")
    token = re.search(r'name="token" value="([^"]*)"', page).group(1)
    form = urllib.parse.urlencode({"token": token, "next": "/", "key": user.key})
    ask(address, cookies, "POST", "/-/login", form)
    if not any("session" in name for name in cookies):
        raise Failed(f"the login gave no session, but {', '.join(cookies) or 'nothing'}")
    return "Cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items())


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
