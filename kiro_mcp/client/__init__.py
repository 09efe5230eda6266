"""The direct engine: it sends requests to the service and reads the answers.

::

    client.py       KiroClient: the attempts of a call; list of models
      admission.py    slots, holds and credit budgets: when a request may be sent
      endpoints.py    which URL and headers a request has, and who may receive a bearer
      http.py         the connections; the only module that knows httpx
      answer.py       an answer on its way: deltas, then the reply
      classify.py     what a refusal means
      retry.py        what follows a failure
    management.py   questions about models, profiles and credits
    off_loop.py     large work in a thread
    telemetry.py    spans and metrics
"""
