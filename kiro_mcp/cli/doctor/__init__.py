"""`kiro-mcp doctor`: finds problems that keep this server from working, and changes nothing.

`probes` examines the machine and the network, `checks` judges the results, `run` combines both and
prints. The doctor writes no file, renews no token, signs nobody in and shows no secret.
"""
