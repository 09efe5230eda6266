"""Credentials: found, kept fresh, made by signing in.

::

    provider.py     TokenProvider: the token that the next request is sent with
      sources.py      which credential is in use, and why
        machine.py      where programs keep their logins
        documents.py    a credential as JSON or text
        kiro_cli.py     kiro-cli's database, and the program that renews its login
        store.py        our own logins
      refresh.py      when and how a login is renewed, safely among processes
        oidc.py         requests to the sign-in services
    sign_in.py      a device login in the background; who is signed in
      device_flow.py  its requests and answers
    credentials.py  credentials as values
    hosts.py        which hosts may receive a secret, which pages a person may be sent to
    files.py        private files and locks
"""
