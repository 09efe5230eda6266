"""Sends requests to the service and reads the answers.

::

    client.py       KiroClient: the attempts of a call; the list of models
      admission.py    slots, holds and credit budgets: when a request may be sent
      endpoints.py    the URL and headers of a request, and which host may receive a secret
      http.py         the connections; the only module that imports httpx
      answer.py       an answer while it arrives: deltas, then the reply
      classify.py     what a refusal means
      retry.py        what to do after a failure
    management.py   requests about models, profiles and credits
    schema_checks.py  an answer that fits a caller's schema; schema_process.py runs slow checks
    off_loop.py     runs large work in a thread
    telemetry.py    spans and metrics
"""
