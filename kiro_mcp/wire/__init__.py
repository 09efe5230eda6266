"""The wire, pure: bytes and values in, values and bytes out. No await, clock, file or log.

The request side, from what a caller gives to the service's JSON::

    messages, images ─▶ ChatRequest ─▶ request ─▶ bytes
                                                  ├─ models: names, fields, the catalogue
                                                  ├─ history: turns that the service takes
                                                  └─ tools, schema: names, descriptions, schemas

The response side, from bytes to the reply::

    bytes ─▶ eventstream ─▶ events ─▶ reply ─▶ deltas, Reply
                                        ├─ thinking: thinking between tags in the text
                                        ├─ tool_use: fragments; text_tool_calls, arguments
                                        └─ schema_check: arguments against the tool's schema

Both sides read and write JSON with `json_values`. `large_json` parses very large messages of
callers. `typed_answers` finds the value in an answer that has a schema to follow.
"""
