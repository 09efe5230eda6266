"""Finds credentials, renews them, and signs people in.

::

    provider.py     TokenProvider: returns the token for the next request
      sources.py      which credential is in use, and why
        machine.py      where programs store their logins
        kiro_cli.py     kiro-cli's database, and the command that renews its login
        store.py        kiro-mcp's own logins
      refresh.py      when and how a login is renewed, safely across processes
    sign_in.py      a device login in the background; who is signed in
    oidc.py         what is sent to the sign-in services, and what their answers mean
    credentials.py  credentials as values, and in the documents that hold them
    hosts.py        which pages a person may be sent to, and which token endpoints are trusted
"""
