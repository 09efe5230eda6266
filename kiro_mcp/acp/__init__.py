"""The second engine: the vendor's own program `kiro-cli` keeps the login and asks the service.

client.py       AcpClient: finds the session for a request, and reads its answer
session.py      one process with one conversation
dialects.py     v2 and V3: how a session is opened, what notifications mean
bridge.py       the caller's tools, as an MCP server that the program calls
transcript.py   messages -> prompts; recognises a conversation
errors.py       the program's words -> our errors
rpc.py          JSON-RPC on a process's stdin and stdout
program.py      finds the program, asks it for version, flags, login and models; ends processes
"""
